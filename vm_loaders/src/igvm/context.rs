// SPDX-License-Identifier: MIT
//! VP contexts: the four payload forms, decoded and encoded.
//!
//! Always true: decoding what [`encode`] wrote gives the same state; reserved bytes are checked, never
//! ignored. Not here: whether the state can run (`launch_plan::check_state`).

mod registers;

use super::codes::Code;
use super::file::File;
use igvm_defs::{IGVM_VHS_VP_CONTEXT, IgvmNativeVpContextX64, VbsVpContextRegister};
use launch_plan::{Aarch64Register, Arch, Isolation, NativeContext, VbsRegister, VpState};
use registers::{aarch64_register_exists, name_of, number_of, value_from, value_to};
use std::borrow::Cow;
use std::collections::BTreeSet;
use x86defs::paging::PAGE_BYTES;
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Size of the native context, in bytes.
const NATIVE_BYTES: usize = size_of::<IgvmNativeVpContextX64>();
/// Size of the CCA context, in bytes.
const CCA_BYTES: usize = 80;
/// Size of one VBS register, in bytes.
const REGISTER_BYTES: usize = size_of::<VbsVpContextRegister>();

/// What decoding needs to know beside the header.
pub(super) struct Source<'f, 'a> {
    pub(super) file: &'f File<'a>,
    pub(super) arch: Arch,
    pub(super) isolation: Isolation,
    pub(super) highest_vtl: u8,
    /// The first file data behind an offset that some header refers to, or the end of the file.
    pub(super) next_reference: &'f dyn Fn(u32) -> u64,
}

type Failure = (Code, String);

/// Decodes the payload of a VP context.
pub(super) fn decode<'a>(
    source: &Source<'_, 'a>,
    header: &IGVM_VHS_VP_CONTEXT,
) -> Result<VpState<'a>, Failure> {
    let offset = header.file_offset;
    match source.isolation {
        Isolation::Tdx => Err((
            Code::ContextPlatform,
            "platform tdx takes no VP context".to_owned(),
        )),
        Isolation::Snp | Isolation::SevEs => {
            let vmsa = bytes_at(source, offset, PAGE_BYTES)?;
            Ok(VpState::Vmsa(Cow::Borrowed(vmsa)))
        }
        Isolation::Native | Isolation::Sev => {
            let bytes = padded(source, offset, NATIVE_BYTES)?;
            decode_native(bytes).map(|context| VpState::Native(Box::new(context)))
        }
        Isolation::Cca => Ok(VpState::Cca(Cow::Borrowed(padded(source, offset, CCA_BYTES)?))),
        Isolation::Vsm => decode_vbs(source, offset),
    }
}

fn bytes_at<'a>(source: &Source<'_, 'a>, offset: u32, len: usize) -> Result<&'a [u8], Failure> {
    source.file.data(offset, len as u64).ok_or_else(|| {
        let message =
            format!("context at file offset {offset:#x} of {len:#x} bytes is outside the file data");
        (Code::DataRange, message)
    })
}

/// A context that is padded with zeros to a page. Files also carry the bare structure, followed by the
/// next piece of data or the end of the file; whatever another header refers to is not padding.
fn padded<'a>(source: &Source<'_, 'a>, offset: u32, len: usize) -> Result<&'a [u8], Failure> {
    let context = bytes_at(source, offset, len)?;
    let file_end = source.file.bytes().len() as u64;
    let start = u64::from(offset);
    let page_end = (start + PAGE_BYTES as u64).min(file_end);
    let is_zero = |end: u64| {
        source.file.bytes()[offset as usize + len..end as usize]
            .iter()
            .all(|&b| b == 0)
    };
    if is_zero(page_end) {
        return Ok(context);
    }
    let next = (source.next_reference)(offset).min(page_end);
    if next >= start + len as u64 && is_zero(next) {
        return Ok(context);
    }
    let message = format!("the page at file offset {offset:#x} is not zero behind its {len} byte context");
    Err((Code::ContextTail, message))
}

fn decode_native(bytes: &[u8]) -> Result<NativeContext, Failure> {
    let raw = IgvmNativeVpContextX64::read_from_bytes(bytes).map_err(|_| {
        (
            Code::DataRange,
            format!("a native context has {NATIVE_BYTES} bytes, not {}", bytes.len()),
        )
    })?;
    if raw.reserved != [0; 2] {
        return Err((
            Code::ReservedField,
            "reserved field of a native context is not zero".to_owned(),
        ));
    }
    let segment = |selector, attributes: u16, limit, base: u32| SegmentRegister {
        selector,
        attributes: SegmentAttributes(attributes.into()),
        limit,
        base: base.into(),
    };
    let mut gpr = [0; 16];
    for (register, value) in gpr.iter_mut().zip(bytes.chunks_exact(8)) {
        *register = u64::from_le_bytes(value.try_into().unwrap_or_default());
    }
    Ok(NativeContext {
        gpr,
        rip: raw.rip,
        rflags: raw.rflags,
        idtr: TableRegister {
            base: raw.idtr_base,
            limit: raw.idtr_limit,
        },
        gdtr: TableRegister {
            base: raw.gdtr_base,
            limit: raw.gdtr_limit,
        },
        cs: segment(
            raw.code_selector,
            raw.code_attributes,
            raw.code_limit,
            raw.code_base,
        ),
        data: segment(
            raw.data_selector,
            raw.data_attributes,
            raw.data_limit,
            raw.data_base,
        ),
        gs_base: raw.gs_base,
        cr0: raw.cr0,
        cr3: raw.cr3,
        cr4: raw.cr4,
        efer: raw.efer,
    })
}

fn decode_vbs<'a>(source: &Source<'_, 'a>, offset: u32) -> Result<VpState<'a>, Failure> {
    let count = bytes_at(source, offset, 4)?;
    let count = u32::from_le_bytes([count[0], count[1], count[2], count[3]]) as usize;
    if count == 0 {
        return Err((Code::ContextRegister, "the register list is empty".to_owned()));
    }
    let list = &bytes_at(source, offset, 4 + count * REGISTER_BYTES)?[4..];
    let mut seen = BTreeSet::new();
    let mut x64 = Vec::new();
    let mut aarch64 = Vec::new();
    for entry in list.chunks_exact(REGISTER_BYTES) {
        let Ok(raw) = VbsVpContextRegister::read_from_bytes(entry) else {
            continue;
        };
        check_register(&raw, source.highest_vtl)?;
        let number = raw.register_name.get();
        if !seen.insert(number) {
            return Err((
                Code::ContextRegister,
                format!("register {number:#x} is listed twice"),
            ));
        }
        match source.arch {
            Arch::X64 => x64.push(x64_register(&raw)?),
            Arch::Aarch64 => aarch64.push(aarch64_register(&raw)?),
        }
    }
    Ok(match source.arch {
        Arch::X64 => VpState::Vbs(x64),
        Arch::Aarch64 => VpState::Aarch64Vbs(aarch64),
    })
}

fn check_register(raw: &VbsVpContextRegister, highest_vtl: u8) -> Result<(), Failure> {
    let (vtl, number) = (raw.vtl, raw.register_name.get());
    if raw.mbz != [0; 11] {
        return Err((
            Code::ReservedField,
            format!("reserved bytes of register {number:#x} are not zero"),
        ));
    }
    if vtl != highest_vtl {
        let message =
            format!("register {number:#x} is of vtl {vtl}; the platform's highest vtl is {highest_vtl}");
        return Err((Code::ContextVtl, message));
    }
    Ok(())
}

fn unknown_register(number: u32) -> Failure {
    (
        Code::ContextRegister,
        format!("register {number:#x} is not known"),
    )
}

fn oversized_value(number: u32) -> Failure {
    (
        Code::ReservedField,
        format!("unused value bytes of register {number:#x} are not zero"),
    )
}

fn x64_register(raw: &VbsVpContextRegister) -> Result<VbsRegister, Failure> {
    let number = raw.register_name.get();
    let name = name_of(number).ok_or_else(|| unknown_register(number))?;
    let value = value_from(name, &raw.register_value).ok_or_else(|| oversized_value(number))?;
    Ok(VbsRegister {
        vtl: raw.vtl,
        name,
        value,
    })
}

fn aarch64_register(raw: &VbsVpContextRegister) -> Result<Aarch64Register, Failure> {
    let name = raw.register_name.get();
    if !aarch64_register_exists(name) {
        return Err(unknown_register(name));
    }
    let value = u128::from_le_bytes(raw.register_value);
    let value = u64::try_from(value).map_err(|_| oversized_value(name))?;
    Ok(Aarch64Register {
        vtl: raw.vtl,
        name,
        value,
    })
}

/// The payload of a state. Native and CCA contexts are padded to a page.
pub(super) fn encode<'p>(state: &'p VpState<'_>) -> Cow<'p, [u8]> {
    let page = |bytes: &[u8]| {
        let mut page = bytes.to_vec();
        page.resize(PAGE_BYTES.max(bytes.len()), 0);
        Cow::Owned(page)
    };
    match state {
        VpState::Vmsa(bytes) if bytes.len() == PAGE_BYTES => Cow::Borrowed(bytes),
        VpState::Vmsa(bytes) | VpState::Cca(bytes) => page(bytes),
        VpState::Native(context) => page(encode_native(context).as_bytes()),
        VpState::Vbs(list) => encode_list(
            list.iter()
                .map(|r| (r.vtl, number_of(r.name), value_to(&r.value))),
            list.len(),
        ),
        VpState::Aarch64Vbs(list) => {
            let value = |value: u64| u128::from(value).to_le_bytes();
            encode_list(list.iter().map(|r| (r.vtl, r.name, value(r.value))), list.len())
        }
    }
}

fn encode_list(registers: impl Iterator<Item = (u8, u32, [u8; 16])>, count: usize) -> Cow<'static, [u8]> {
    let mut bytes = (count as u32).to_le_bytes().to_vec();
    for (vtl, number, register_value) in registers {
        let raw = VbsVpContextRegister {
            vtl,
            register_name: number.into(),
            mbz: [0; 11],
            register_value,
        };
        bytes.extend_from_slice(raw.as_bytes());
    }
    Cow::Owned(bytes)
}

fn encode_native(context: &NativeContext) -> IgvmNativeVpContextX64 {
    let mut raw = IgvmNativeVpContextX64 {
        rip: context.rip,
        rflags: context.rflags,
        idtr_base: context.idtr.base,
        idtr_limit: context.idtr.limit,
        gdtr_limit: context.gdtr.limit,
        gdtr_base: context.gdtr.base,
        code_selector: context.cs.selector,
        code_attributes: context.cs.attributes.0 as u16,
        code_base: context.cs.base as u32,
        code_limit: context.cs.limit,
        data_selector: context.data.selector,
        data_attributes: context.data.attributes.0 as u16,
        data_base: context.data.base as u32,
        data_limit: context.data.limit,
        gs_base: context.gs_base,
        cr0: context.cr0,
        cr3: context.cr3,
        cr4: context.cr4,
        efer: context.efer,
        ..IgvmNativeVpContextX64::new_zeroed()
    };
    // The sixteen general purpose registers come first, in encoding order.
    for (place, value) in raw.as_mut_bytes().chunks_exact_mut(8).zip(context.gpr) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    raw
}
