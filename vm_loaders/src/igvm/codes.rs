// SPDX-License-Identifier: MIT
//! The table of everything that can be wrong with an IGVM file.
//!
//! Always true: a code's text form is stable (tools and tests match on it), every code has one severity,
//! a rule and an example, and the test suite provokes each of them. Not here: where a code is raised
//! ([`super::check`], [`super::interpret`]).

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; nothing to fix.
    Note,
    /// Allowed or common, and yet likely a mistake.
    Warning,
    /// Breaks a rule of the format; the file cannot be planned.
    Error,
}

impl Severity {
    /// `note`, `warning` or `error`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct CodeInfo {
    /// Which code.
    pub code: Code,
    /// Stable text form.
    pub id: &'static str,
    /// Severity of every problem with this code.
    pub severity: Severity,
    /// The rule that was broken, as a statement.
    pub rule: &'static str,
    /// One file that breaks it, and what to do.
    pub example: &'static str,
}

macro_rules! codes {
    ($($name:ident $severity:ident $id:literal $rule:literal $example:literal)*) => {
        /// What is wrong; see [`Code::info`] for the rule.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $rule] $name,)*
        }

        /// Every code, in the order in which files are checked.
        pub const CODES: &[CodeInfo] = &[
            $(CodeInfo {
                code: Code::$name,
                id: $id,
                severity: Severity::$severity,
                rule: $rule,
                example: $example,
            },)*
        ];
    };
}

codes! {
    TooShort Error "too-short"
        "a file holds at least its fixed header: 24 bytes in format version 1, 32 in version 2"
        "an empty file; copy it again"
    Magic Error "magic"
        "a file starts with the four bytes IGVM"
        "an ELF or a raw firmware image; build an IGVM file from it first"
    FormatVersion Error "format-version"
        "the format version is 1 or 2"
        "a fixed header with format version 3; use a newer reader"
    HeaderRange Error "header-range"
        "the variable headers lie behind the fixed header and inside the file"
        "a file cut off within its headers; copy it again"
    HeaderAlignment Error "header-alignment"
        "the variable headers start at a multiple of 8"
        "a variable header offset of 0x1c; rebuild the file"
    HeaderTruncated Error "header-truncated"
        "every variable header lies inside the variable header region"
        "a last header whose length field says 4096; rebuild the file"
    TotalSize Error "total-size"
        "the total size of the fixed header is the length of the file"
        "a file with one byte appended; copy it again or rebuild it"
    Checksum Error "checksum"
        "the checksum is the CRC-32 of the fixed header (checksum zero) and the variable headers"
        "a header patched by hand; write the file with a tool that updates the checksum"
    Architecture Error "architecture"
        "a version 2 architecture is 0 (x64) or 1 (aarch64)"
        "a fixed header with architecture 7"
    PageSize Error "page-size"
        "the page size of a version 2 file is 4096"
        "a file for 64 KiB pages"
    HeaderPadding Error "header-padding"
        "the bytes between a header's content and the next multiple of 8 are zero"
        "uninitialized bytes behind a VP context"
    HeaderGap Note "header-gap"
        "bytes between the fixed header and the variable headers have no meaning"
        "variable headers that start at 0x40; nothing to do"
    HeaderType Error "header-type"
        "a header without the optional bit has a known type"
        "type 0x3ff; mark it optional or use a newer reader"
    HeaderTypeRetired Error "header-type-retired"
        "type 0x306 was retired and is not used again"
        "a file of a pre-release tool; rebuild it"
    HeaderOptional Note "header-optional"
        "a header with the optional bit may be skipped by a reader that does not know it"
        "type 0x80000350, skipped"
    HeaderLength Error "header-length"
        "a header's length is the size of its structure"
        "a page data header of 20 bytes"
    SectionOrder Error "section-order"
        "platform headers come first, then initialization headers, then directives"
        "a supported platform header behind the first page"
    ReservedField Error "reserved-field"
        "reserved fields and undefined flag bits are zero"
        "a page data header with flag bit 7"
    UnusedData Note "unused-data"
        "file data that no header refers to has no effect"
        "a file whose pages were removed but not their data"
    PlatformNone Error "platform-none"
        "a file supports at least one platform"
        "a file without a supported platform header"
    PlatformMask Error "platform-mask"
        "a platform's compatibility mask has exactly one bit"
        "a supported platform header with mask 0x3"
    PlatformMaskShared Error "platform-mask-shared"
        "no two platforms share a mask bit"
        "SEV-SNP and TDX both with mask 0x1"
    PlatformType Error "platform-type"
        "the platform type is 0 to 6"
        "platform type 9; use a newer reader"
    PlatformDuplicate Error "platform-duplicate"
        "a platform type is listed once"
        "two VSM_ISOLATION platforms; merge them"
    PlatformVersion Error "platform-version"
        "the platform version is 1"
        "a TDX platform of version 2"
    PlatformVtl Error "platform-vtl"
        "the highest VTL is 0 or 2"
        "a supported platform with highest VTL 1"
    PlatformVtlUnused Warning "platform-vtl-unused"
        "only platforms with trust levels use VTL 2"
        "a NATIVE platform with highest VTL 2"
    PlatformArchitecture Error "platform-architecture"
        "NATIVE, SEV, SEV-ES, SEV-SNP and TDX are x64; CCA is aarch64"
        "a version 1 file with a CCA platform; write it as version 2"
    SharedBoundary Warning "shared-boundary"
        "a shared gpa boundary is zero or one power of two, on SEV-SNP, TDX or VSM_ISOLATION"
        "a NATIVE platform with a boundary"
    PlatformAbsent Error "platform-absent"
        "a plan is made for a platform that the file lists"
        "asking a TDX file for SEV-SNP; choose one of its platforms"
    MaskNoPlatform Warning "mask-no-platform"
        "a header applies to at least one platform of the file"
        "a page with compatibility mask 0; it is never loaded"
    MaskUnknownBit Warning "mask-unknown-bit"
        "a header's mask has no bits beyond the file's platforms"
        "a page with mask 0x3 in a file whose only platform is 0x1"
    DataRange Error "data-range"
        "a file offset and its length lie in the file data, behind the headers"
        "a page whose data begins in the last 100 bytes of the file"
    PolicyDuplicate Error "policy-duplicate"
        "a platform has at most one policy"
        "two guest policy headers with mask 0x1"
    PolicyPlatform Warning "policy-platform"
        "a policy belongs to a platform that has one: SEV, SEV-ES, SEV-SNP or TDX, and CCA for its own kind"
        "a guest policy for NATIVE; it has no effect"
    PolicyReserved Error "policy-reserved"
        "reserved policy bits are zero"
        "a TDX policy with bit 40"
    PolicyMustBeOne Error "policy-must-be-one"
        "bit 17 of a SEV-SNP policy is one"
        "SEV-SNP policy 0; firmware refuses it, use 0x30000"
    PolicyMismatch Error "policy-mismatch"
        "bit 2 (encrypted state) of a SEV policy is one for SEV-ES and zero for plain SEV"
        "a SEV-ES platform with policy 1; use 5"
    PolicyMissing Warning "policy-missing"
        "a SEV-SNP platform has a guest policy"
        "a SEV-SNP file without one; launches fall back to the host's policy"
    CcaPolicyConflict Error "cca-policy-conflict"
        "no attribute is required both zero and one"
        "required zeroes 1 and required ones 1"
    CcaPolicyValue Error "cca-policy-value"
        "the hash algorithm is 0 to 2 and the firmware activation policy 0 or 1"
        "a hash algorithm of 9"
    RelocationAlignment Error "relocation-alignment"
        "a relocation alignment is a non-zero multiple of 4 KiB"
        "an alignment of 0"
    RelocationRegion Error "relocation-region"
        "a relocatable region is a non-empty 4 KiB multiple whose base, minimum and maximum are aligned and which fits between them"
        "a region of 2 MiB with a maximum of 1 MiB"
    RelocationOverlap Error "relocation-overlap"
        "the relocatable and page table regions of a platform do not overlap"
        "two regions at gpa 0x200000"
    RelocationVtl Error "relocation-vtl"
        "a region's VTL is 0 or 2 and is 2 when it is flagged as VTL2 memory"
        "a VTL2 region with VTL 0"
    RelocationContext Error "relocation-context"
        "the VP that a region names has a context whose registers can move: native or a VBS list"
        "a relocatable SEV-SNP file"
    PageTableRegion Error "page-table-region"
        "a page table region is page aligned, not empty, and uses no more than its size"
        "a used size of 0x3000 in a region of 0x2000"
    PageTableDuplicate Error "page-table-duplicate"
        "a platform has at most one page table region"
        "two page table relocation headers with mask 0x1"
    PageTablePaging Error "page-table-paging"
        "the VP of a page table region starts in 64-bit paging with CR3 in that region"
        "a region at 0x700000 with CR3 0x1000"
    PageTableInsert Error "page-table-insert"
        "no parameter area is inserted in a page table region"
        "a parameter insert at the region's first page"
    CorimDuplicate Error "corim-duplicate"
        "a platform has at most one CoRIM document and one signature"
        "two CoRIM documents with mask 0x1"
    CorimOrder Error "corim-order"
        "a CoRIM signature follows its document"
        "a signature without a document"
    VersionStringText Error "version-string-text"
        "a version string is UTF-8"
        "a Latin-1 version string"
    VersionStringDuplicate Error "version-string-duplicate"
        "a file has at most one version string"
        "two version strings"
    PageAlignment Error "page-alignment"
        "pages, inserts and error ranges start and end on page boundaries: 4 KiB, or 2 MiB with the large page flag"
        "a large page at gpa 0x1000"
    GpaRange Error "gpa-range"
        "a range is not empty and does not pass the end of the address space"
        "an error range of 0 bytes"
    GpaOverlap Error "gpa-overlap"
        "pages, inserts and error ranges of a platform do not overlap"
        "two pages at gpa 0x100000"
    PageType Error "page-type"
        "the page data type is 0 to 3"
        "data type 4"
    PageTypePlatform Warning "page-type-platform"
        "secrets and CPUID pages belong to SEV-SNP"
        "a secrets page for NATIVE; loaders treat it as memory or refuse it"
    AreaSize Error "area-size"
        "a parameter area is a non-empty multiple of 4 KiB, at most 1 GiB"
        "a parameter area of 100 bytes"
    AreaDuplicate Error "area-duplicate"
        "a parameter area index is declared once"
        "two areas with index 0"
    AreaUnknown Error "area-unknown"
        "a parameter or insert refers to an area declared before it"
        "a memory map for area 3 before area 3 is declared"
    AreaInserted Error "area-inserted"
        "an area is inserted once and takes no parameters afterwards"
        "an area inserted at two addresses"
    AreaUnused Warning "area-unused"
        "a declared parameter area is inserted"
        "an area without a parameter insert; its values reach nobody"
    ParameterRange Error "parameter-range"
        "a parameter lies inside its area"
        "a VP count at byte offset 0x1000 of a 4 KiB area"
    ParameterOverlap Error "parameter-overlap"
        "parameters of one area do not overlap"
        "a VP count at byte offset 8 behind a memory map at 0"
    ContextPlatform Error "context-platform"
        "a VP context is for exactly one platform, and not for TDX"
        "a VP context with mask 0x3"
    ContextAddress Warning "context-address"
        "a VP context has a page-aligned gpa on SEV-ES and SEV-SNP and none elsewhere"
        "a native context with gpa 0x1000"
    ContextDuplicate Error "context-duplicate"
        "a VP has one context per platform"
        "two contexts for VP 0"
    ContextTail Error "context-tail"
        "the rest of a context's page is zero"
        "a native context with data at offset 232"
    ContextRegister Error "context-register"
        "a VBS register list names known registers, each once, and is not empty"
        "a list that names CR0 twice"
    ContextVtl Error "context-vtl"
        "all registers of a VBS list are of the platform's highest VTL"
        "VTL 2 registers on a platform with highest VTL 0"
    ContextVpIndex Error "context-vp-index"
        "a VBS register list is for VP 0"
        "a VBS list for VP 1"
    ContextState Warning "context-state"
        "the registers of a context are a state that a processor can have"
        "CR0 with paging but without protected mode; the launch refuses it"
    VmsaFeatures Warning "vmsa-features"
        "bit 0 (SNP active) of a VMSA's features is one for SEV-SNP and zero for SEV-ES"
        "a SEV-SNP VMSA without it; the launch fails"
    RequiredMemoryVtl Error "required-memory-vtl"
        "VTL2-protectable memory needs a platform with highest VTL 2"
        "a VTL2-protectable range on a VTL 0 platform"
    IdBlockPlatform Error "id-block-platform"
        "an ID block is for SEV-SNP"
        "an ID block with a TDX mask"
    IdBlockDuplicate Error "id-block-duplicate"
        "a platform has at most one ID block"
        "two ID blocks with mask 0x1"
    IdBlockValue Warning "id-block-value"
        "an ID block has version 1, key algorithm 1 (ECDSA P-384 with SHA-384) and curve 2 (P-384)"
        "an unsigned ID block with key algorithm 0"
    VbsMeasurementPlatform Error "vbs-measurement-platform"
        "a VBS measurement is for VSM_ISOLATION"
        "a VBS measurement with a SEV-SNP mask"
    VbsMeasurementDuplicate Error "vbs-measurement-duplicate"
        "a platform has at most one VBS measurement"
        "two VBS measurements with mask 0x1"
    VbsMeasurementValue Error "vbs-measurement-value"
        "a VBS measurement's digest algorithm is 1 (SHA-256) and its signing algorithm 1 (ECDSA P-384)"
        "digest algorithm 5"
    TooManyProblems Note "too-many-problems"
        "a report lists at most 1000 problems"
        "a file in which every page is misplaced"
}

impl Code {
    /// The row of this code.
    pub fn info(self) -> &'static CodeInfo {
        // The table and the enum are written by one macro, in one order.
        &CODES[self as usize]
    }

    /// Stable text form.
    pub fn id(self) -> &'static str {
        self.info().id
    }

    /// Severity.
    pub fn severity(self) -> Severity {
        self.info().severity
    }

    /// The code with this text form.
    pub fn from_id(id: &str) -> Option<Self> {
        CODES.iter().find(|info| info.id == id).map(|info| info.code)
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::{CODES, Code};

    #[test]
    fn every_code_is_found_by_its_id_and_ids_are_unique() {
        for info in CODES {
            assert_eq!(Code::from_id(info.id), Some(info.code));
            assert_eq!(info.code.id(), info.id);
        }
        assert_eq!(Code::from_id("nonsense"), None);
    }
}
