// SPDX-License-Identifier: MIT
//! Whether an initial register state can exist at all, checked before the first run, so that a bad file
//! ends with a register's name instead of a failed entry.
//!
//! Always true: only architectural contradictions are refused (APM2 sections 3.1, 4.8, 5.3, 7.7, 7.8;
//! SDM volume 3 section 26.3.1), never what one backend happens to lack. Not here: VMSAs, whose rules
//! are the SEV backend's.

use x86defs::{SegmentAttributes, SegmentRegister, X86State, cr0, cr4, efer, rflags};

/// A contradiction in an initial state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum StateError {
    #[error("cr0 {0:#x} has bits above 31 set")]
    Cr0Reserved(u64),
    #[error("cr0 {0:#x} has paging without protected mode (PG needs PE)")]
    PagingWithoutProtection(u64),
    #[error("cr0 {0:#x} has not-write-through without cache-disable (NW needs CD)")]
    NotWriteThrough(u64),
    #[error("cr4 {0:#x} has reserved bits set")]
    Cr4Reserved(u64),
    #[error("cr4 {0:#x} has process-context identifiers outside long mode (PCIDE needs EFER.LMA)")]
    PcidOutsideLongMode(u64),
    #[error("cr3 {0:#x} has bits above 51 set")]
    Cr3Reserved(u64),
    #[error("efer {0:#x} has reserved bits set")]
    EferReserved(u64),
    #[error("efer {efer:#x} and cr0 {cr0:#x} disagree: LMA must be set exactly when LME and PG are")]
    LongModeActive { efer: u64, cr0: u64 },
    #[error("long mode paging needs cr4.PAE; cr4 is {0:#x}")]
    LongModeWithoutPae(u64),
    #[error("cs attributes {0:#x} have both L and D set")]
    CodeLongAndDefault(u32),
    #[error("cs attributes {0:#x} are 64-bit but long mode is not active")]
    Code64OutsideLongMode(u32),
    #[error("cs attributes {0:#x} are not a present code segment")]
    CodeSegment(u32),
    #[error("{register} attributes {attributes:#x} and limit {limit:#x} disagree about granularity")]
    Granularity {
        register: &'static str,
        attributes: u32,
        limit: u32,
    },
    #[error("tr attributes {0:#x} are not a present busy task segment")]
    TaskSegment(u32),
    #[error("{register} {value:#x} is not a canonical address")]
    NotCanonical { register: &'static str, value: u64 },
    #[error("rip {0:#x} does not fit 32 bits outside 64-bit mode")]
    RipTooLarge(u64),
    #[error("rflags {0:#x} has reserved bits set")]
    RflagsReserved(u64),
    #[error("rflags {0:#x} has virtual-8086 mode in long mode or without protection")]
    Virtual8086(u64),
    #[error("{register} {value:#x} has a memory type that does not exist")]
    MemoryType { register: &'static str, value: u64 },
}

/// Checks a state; the first contradiction is the error.
pub fn check_state(state: &X86State) -> Result<(), StateError> {
    check_control(state)?;
    check_segments(state)?;
    check_flags_and_addresses(state)?;
    check_memory_types(state)
}

/// Bits of CR4 that exist (SDM volume 3 section 2.5), beyond those that `x86defs` names.
const CR4_DEFINED: u64 = 0x0000_0001_03FF_7FFF & !(1 << 15);
/// Bits of EFER that exist (APM2 section 3.1.7).
const EFER_DEFINED: u64 = 0x0037_FD01;
/// Bits of RFLAGS that exist (APM2 section 3.1.6).
const RFLAGS_DEFINED: u64 = 0x003F_7FD7;

fn check_control(state: &X86State) -> Result<(), StateError> {
    let has0 = |bit| state.cr0 & bit != 0;
    if state.cr0 >> 32 != 0 {
        return Err(StateError::Cr0Reserved(state.cr0));
    }
    if has0(cr0::PG) && !has0(cr0::PE) {
        return Err(StateError::PagingWithoutProtection(state.cr0));
    }
    if has0(cr0::NW) && !has0(cr0::CD) {
        return Err(StateError::NotWriteThrough(state.cr0));
    }
    if state.cr4 & !CR4_DEFINED != 0 {
        return Err(StateError::Cr4Reserved(state.cr4));
    }
    if state.cr3 >> 52 != 0 {
        return Err(StateError::Cr3Reserved(state.cr3));
    }
    if state.efer & !EFER_DEFINED != 0 {
        return Err(StateError::EferReserved(state.efer));
    }
    let active = state.efer & efer::LMA != 0;
    if active != (state.efer & efer::LME != 0 && has0(cr0::PG)) {
        return Err(StateError::LongModeActive {
            efer: state.efer,
            cr0: state.cr0,
        });
    }
    if active && state.cr4 & cr4::PAE == 0 {
        return Err(StateError::LongModeWithoutPae(state.cr4));
    }
    if state.cr4 & cr4::PCIDE != 0 && !active {
        return Err(StateError::PcidOutsideLongMode(state.cr4));
    }
    Ok(())
}

fn check_segments(state: &X86State) -> Result<(), StateError> {
    let cs = state.cs.attributes;
    let code = SegmentAttributes::P | SegmentAttributes::S;
    // Real mode runs from what a data descriptor would be as well; only protected mode needs type bit 3.
    let executable = state.cr0 & cr0::PE == 0 || cs.segment_type() & 8 != 0;
    if !cs.has(code) || cs.has(SegmentAttributes::UNUSABLE) || !executable {
        return Err(StateError::CodeSegment(cs.0));
    }
    if cs.has(SegmentAttributes::L | SegmentAttributes::DB) {
        return Err(StateError::CodeLongAndDefault(cs.0));
    }
    if cs.has(SegmentAttributes::L) && state.efer & efer::LMA == 0 {
        return Err(StateError::Code64OutsideLongMode(cs.0));
    }
    let segments = [
        ("cs", &state.cs),
        ("ds", &state.ds),
        ("es", &state.es),
        ("fs", &state.fs),
        ("gs", &state.gs),
        ("ss", &state.ss),
        ("tr", &state.tr),
    ];
    for (register, segment) in segments {
        check_granularity(register, segment)?;
    }
    let tr = state.tr.attributes;
    let busy = matches!(tr.segment_type(), 3 | 11) && !tr.has(SegmentAttributes::S);
    if !busy || !tr.has(SegmentAttributes::P) || tr.has(SegmentAttributes::UNUSABLE) {
        return Err(StateError::TaskSegment(tr.0));
    }
    Ok(())
}

/// With G set the low 12 bits of the scaled limit are ones; with G clear the limit is below 1 MiB.
fn check_granularity(register: &'static str, segment: &SegmentRegister) -> Result<(), StateError> {
    let attributes = segment.attributes;
    if !attributes.has(SegmentAttributes::P) || attributes.has(SegmentAttributes::UNUSABLE) {
        return Ok(());
    }
    let agrees = if attributes.has(SegmentAttributes::G) {
        segment.limit & 0xFFF == 0xFFF
    } else {
        segment.limit >> 20 == 0
    };
    if agrees {
        return Ok(());
    }
    Err(StateError::Granularity {
        register,
        attributes: attributes.0,
        limit: segment.limit,
    })
}

fn check_flags_and_addresses(state: &X86State) -> Result<(), StateError> {
    if state.rflags & !RFLAGS_DEFINED != 0 {
        return Err(StateError::RflagsReserved(state.rflags));
    }
    let long = state.efer & efer::LMA != 0;
    if state.rflags & rflags::VM != 0 && (long || state.cr0 & cr0::PE == 0) {
        return Err(StateError::Virtual8086(state.rflags));
    }
    if !state.is_64bit() && state.rip >> 32 != 0 {
        return Err(StateError::RipTooLarge(state.rip));
    }
    let addresses = [
        ("rip", state.rip),
        ("gdtr base", state.gdtr.base),
        ("idtr base", state.idtr.base),
        ("fs base", state.fs.base),
        ("gs base", state.gs.base),
        ("tr base", state.tr.base),
    ];
    let bits = if state.cr4 & cr4::LA57 != 0 { 57 } else { 48 };
    match addresses
        .into_iter()
        .find(|&(_, value)| !is_canonical(value, bits))
    {
        Some((register, value)) => Err(StateError::NotCanonical { register, value }),
        None => Ok(()),
    }
}

fn is_canonical(value: u64, bits: u32) -> bool {
    let high = (value as i64) >> (bits - 1);
    high == 0 || high == -1
}

fn check_memory_types(state: &X86State) -> Result<(), StateError> {
    let mtrr = |kind: u64| matches!(kind, 0 | 1 | 4 | 5 | 6);
    if let Some(value) = bytes_not(state.pat, |kind| mtrr(kind) || kind == 7) {
        return Err(StateError::MemoryType {
            register: "pat",
            value,
        });
    }
    if !mtrr(state.mtrr.def_type & 0xFF) || state.mtrr.def_type & !0xCFF != 0 {
        return Err(StateError::MemoryType {
            register: "mtrr_def_type",
            value: state.mtrr.def_type,
        });
    }
    if let Some(value) = state.mtrr.fixed.iter().find_map(|&value| bytes_not(value, mtrr)) {
        return Err(StateError::MemoryType {
            register: "a fixed mtrr",
            value,
        });
    }
    let enabled = |mask: u64| mask & (1 << 11) != 0;
    match state
        .mtrr
        .variable
        .iter()
        .find(|(base, mask)| enabled(*mask) && !mtrr(base & 0xFF))
    {
        Some(&(value, _)) => Err(StateError::MemoryType {
            register: "a variable mtrr",
            value,
        }),
        None => Ok(()),
    }
}

/// `value` when one of its bytes is not an allowed type.
fn bytes_not(value: u64, allowed: impl Fn(u64) -> bool) -> Option<u64> {
    value
        .to_le_bytes()
        .iter()
        .any(|&byte| !allowed(u64::from(byte)))
        .then_some(value)
}

#[cfg(test)]
mod tests;
