// SPDX-License-Identifier: MIT
//! What `inspect` knows about a file, as data; `--json` prints exactly this (schema version [`SCHEMA`]).
//!
//! Always true: addresses, register values, masks and policies are hexadecimal strings, because JSON numbers
//! lose bits above 2^53; sizes, counts, header indexes and file offsets are numbers. Fields are only ever
//! added within a schema version. `Guide/src/json.md` is the description for users.

use serde::{Serialize, Serializer};

/// Version of the `inspect --json` schema.
pub const SCHEMA: u32 = 1;

/// A number that people read in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hex(pub u64);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{:#x}", self.0))
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A whole file.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The file.
    pub file: FileFacts,
    /// One entry per platform, in file order.
    pub platforms: Vec<PlatformView>,
}

/// The file as a container.
#[derive(Debug, Clone, Serialize)]
pub struct FileFacts {
    /// Its name as it was given.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Format version, 1 or 2.
    pub format_version: u32,
    /// `x64` or `aarch64`.
    pub architecture: &'static str,
    /// File offset of the first variable header.
    pub headers_at: u64,
    /// File offset of the file data.
    pub data_at: u64,
    /// Number of variable headers.
    pub headers: usize,
    /// How many headers of each type, in type order.
    pub header_types: Vec<TypeCount>,
    /// File data that no header refers to.
    pub unused: Vec<UnusedData>,
    /// Text of the version string header.
    pub version_string: Option<String>,
}

/// How often a header type occurs.
#[derive(Debug, Clone, Serialize)]
pub struct TypeCount {
    /// Name as the specification spells it, or the number of an unknown type.
    pub name: String,
    /// Type number, with the optional bit.
    #[serde(rename = "type")]
    pub typ: Hex,
    /// Headers of this type.
    pub count: u64,
}

/// A piece of file data without use.
#[derive(Debug, Clone, Serialize)]
pub struct UnusedData {
    /// File offset.
    pub at: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// One platform of the file.
#[derive(Debug, Clone, Serialize)]
pub struct PlatformView {
    /// `native`, `vsm`, `sev`, `sev-es`, `snp`, `tdx` or `cca`.
    pub platform: &'static str,
    /// `x64` or `aarch64`.
    pub architecture: &'static str,
    /// Compatibility mask.
    pub mask: Hex,
    /// Highest VTL that the image uses.
    pub highest_vtl: u8,
    /// First byte address of shared memory, `0x0` when unused.
    pub shared_gpa_boundary: Hex,
    /// Index of the platform's header.
    pub header: u32,
    /// Why there is no plan; everything below is empty then.
    pub refused: Option<String>,
    /// What the image is, as `type=auto` decides it.
    pub payload: String,
    /// The guest policy, decoded.
    pub policy: Option<Policy>,
    /// The realm policy (CCA), decoded.
    pub realm_policy: Option<Policy>,
    /// The SEV-SNP ID block.
    pub id_block: Option<IdBlockView>,
    /// The VBS measurement, as name and value.
    pub vbs_measurement: Vec<Field>,
    /// The CoRIM document, as name and value.
    pub corim: Vec<Field>,
    /// How each VP starts.
    pub vps: Vec<VpView>,
    /// Regions that may be moved.
    pub relocatable: Vec<Relocatable>,
    /// The page table region of a movable image.
    pub page_tables: Option<PageTables>,
    /// Imported pages by kind.
    pub pages: Vec<PageCount>,
    /// Launch steps in order, with neighbouring pages of one kind joined.
    pub runs: Vec<Run>,
    /// What host values the image takes, and where.
    pub parameters: Vec<Parameter>,
    /// RAM that the image expects.
    pub required_memory: Vec<Range>,
    /// Unused addresses between imported pages.
    pub holes: Vec<Range>,
}

/// A policy and the meaning of its bits.
#[derive(Debug, Clone, Serialize)]
pub struct Policy {
    /// The value.
    pub value: Hex,
    /// Every field of it, reserved bits that are set included.
    pub fields: Vec<Field>,
}

/// A named value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// What.
    pub name: String,
    /// Its value for people.
    pub value: String,
}

impl Field {
    /// A field from anything that prints.
    pub fn new(name: impl Into<String>, value: impl std::fmt::Display) -> Self {
        Self {
            name: name.into(),
            value: value.to_string(),
        }
    }
}

/// A SEV-SNP ID block.
#[derive(Debug, Clone, Serialize)]
pub struct IdBlockView {
    /// Expected launch digest, hex.
    pub launch_digest: String,
    /// Everything else.
    pub fields: Vec<Field>,
}

/// How a VP starts.
#[derive(Debug, Clone, Serialize)]
pub struct VpView {
    /// VP index.
    pub vp: u32,
    /// `native`, `vbs`, `vmsa`, `cca` or `reset` (no context).
    pub form: &'static str,
    /// Address of the VMSA, `0x0` elsewhere.
    pub gpa: Hex,
    /// Processor mode in words.
    pub mode: String,
    /// Linear address of the first instruction.
    pub entry: Option<Hex>,
    /// The header that gives the state; `None` for a VP without a context.
    pub header: Option<u32>,
    /// Every register that the context names, or that is not zero in a VMSA.
    pub registers: Vec<Field>,
}

/// A region that may be moved.
#[derive(Debug, Clone, Serialize)]
pub struct Relocatable {
    /// First byte address in the file.
    pub gpa: Hex,
    /// Length in bytes.
    pub bytes: u64,
    /// Lowest base.
    pub minimum: Hex,
    /// Highest end.
    pub maximum: Hex,
    /// Alignment of the base.
    pub alignment: Hex,
    /// VP and VTL whose registers move, and which registers.
    pub moves: String,
}

/// The page table region of a movable image.
#[derive(Debug, Clone, Serialize)]
pub struct PageTables {
    /// First byte address in the file.
    pub gpa: Hex,
    /// Length in bytes.
    pub bytes: u64,
    /// Bytes in use.
    pub used: u64,
}

/// How many pages of a kind.
#[derive(Debug, Clone, Serialize)]
pub struct PageCount {
    /// Kind, with `2 MiB` for large ones.
    pub kind: String,
    /// Pages.
    pub pages: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A line of the launch.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// `import`, `error range`, `required memory` or `vp context`.
    pub step: &'static str,
    /// First byte address.
    pub gpa: Hex,
    /// Length in bytes, 0 for a context without an address.
    pub bytes: u64,
    /// Page kind of an import: `measured`, `unmeasured`, `shared`, `secrets`, `cpuid`, `cpuid-xf`.
    pub kind: Option<&'static str>,
    /// Contents of an import: `data`, `zero` or `parameters`.
    pub contents: Option<&'static str>,
    /// Page size of an import.
    pub page_bytes: Option<u64>,
    /// What the run is, when it is recognised or says so itself.
    pub name: Option<String>,
    /// Recognised parts of it, in address order.
    pub regions: Vec<Region>,
    /// Index of its first header.
    pub first_header: u32,
    /// Index of its last header.
    pub last_header: u32,
}

/// A recognised piece of memory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Region {
    /// First byte address.
    pub gpa: Hex,
    /// Length in bytes.
    pub bytes: u64,
    /// What it is.
    pub name: String,
}

/// A host value that the image takes.
#[derive(Debug, Clone, Serialize)]
pub struct Parameter {
    /// Which value.
    pub name: &'static str,
    /// Its address in the guest.
    pub gpa: Hex,
    /// Index of its parameter area.
    pub area: u32,
    /// Offset in the area, in bytes.
    pub byte_offset: u32,
    /// Bytes up to the next value or the end of the area.
    pub room: u64,
    /// Index of its header.
    pub header: u32,
}

/// A range of guest memory.
#[derive(Debug, Clone, Serialize)]
pub struct Range {
    /// First byte address.
    pub gpa: Hex,
    /// Length in bytes.
    pub bytes: u64,
    /// Anything more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}
