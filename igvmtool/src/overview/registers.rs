// SPDX-License-Identifier: MIT
//! Initial processor state as named registers, a mode in words, and the first instruction's address.
//!
//! Always true: every register that a context names is listed; of a VMSA, every field that is not zero.
//! Not here: whether the state can exist (`launch_plan::check_state`).

use super::schema::{Field, Hex, VpView};
use launch_plan::{NativeContext, Origin, VbsRegisterName, VbsValue, VpContext, VpState};
use x86defs::vmsa::{self, VMSA_FIELDS, field_at};
use x86defs::{SegmentAttributes, SegmentRegister, TableRegister, X86State, cr0, efer};

const GPR: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// A VP of the plan.
pub(crate) fn vp(context: &VpContext<'_>, origin: Origin) -> VpView {
    let header = match origin {
        Origin::Header { index, .. } => Some(index),
        Origin::Host(_) => None,
    };
    let (form, start, registers) = describe(&context.state);
    VpView {
        vp: context.vp,
        form,
        gpa: Hex(context.gpa),
        mode: start.mode,
        entry: start.entry.map(Hex),
        header,
        registers,
    }
}

/// The bootstrap processor of an image without contexts: the architectural reset state.
pub(crate) fn reset() -> VpView {
    let start = x86_start(&X86State::reset());
    VpView {
        vp: 0,
        form: "reset",
        gpa: Hex(0),
        mode: start.mode,
        entry: start.entry.map(Hex),
        header: None,
        registers: Vec::new(),
    }
}

struct Start {
    mode: String,
    entry: Option<u64>,
}

fn describe(state: &VpState<'_>) -> (&'static str, Start, Vec<Field>) {
    match state {
        VpState::Native(context) => ("native", start_of(state), native(context)),
        VpState::Vbs(list) => {
            let fields = list
                .iter()
                .map(|r| Field::new(vbs_name(r.name), vbs_value(&r.value)));
            ("vbs", start_of(state), fields.collect())
        }
        VpState::Vmsa(page) => ("vmsa", vmsa_start(page), vmsa_registers(page)),
        VpState::Cca(bytes) => ("cca", cca_start(bytes), cca_registers(bytes)),
        VpState::Aarch64Vbs(list) => {
            let name = |number| aarch64_name(number).map_or_else(|| format!("{number:#x}"), str::to_owned);
            let fields: Vec<_> = list
                .iter()
                .map(|r| Field::new(name(r.name), Hex(r.value)))
                .collect();
            let pc = list.iter().find(|r| r.name == AARCH64_PC).map(|r| r.value);
            let start = Start {
                mode: "aarch64".to_owned(),
                entry: pc,
            };
            ("vbs", start, fields)
        }
    }
}

fn start_of(state: &VpState<'_>) -> Start {
    state.to_x86().as_ref().map_or(
        Start {
            mode: "unknown".to_owned(),
            entry: None,
        },
        x86_start,
    )
}

fn x86_start(state: &X86State) -> Start {
    start(state.cr0, state.efer, &state.cs, state.rip)
}

fn start(control: u64, extended: u64, cs: &SegmentRegister, rip: u64) -> Start {
    let paging = if control & cr0::PG != 0 { "with" } else { "without" };
    let long = extended & efer::LMA != 0 || (extended & efer::LME != 0 && control & cr0::PG != 0);
    if long && cs.attributes.has(SegmentAttributes::L) {
        return Start {
            mode: "64-bit long mode".to_owned(),
            entry: Some(rip),
        };
    }
    let mode = if control & cr0::PE == 0 {
        "16-bit real mode".to_owned()
    } else if cs.attributes.has(SegmentAttributes::DB) {
        format!("32-bit protected mode {paging} paging")
    } else {
        format!("16-bit protected mode {paging} paging")
    };
    let entry = cs.base.wrapping_add(rip) & 0xFFFF_FFFF;
    Start {
        mode: format!("{mode} at {:04x}:{rip:x}", cs.selector),
        entry: Some(entry),
    }
}

fn segment_text(segment: &SegmentRegister) -> String {
    format!(
        "selector {:#x}, base {:#x}, limit {:#x}, attributes {:#x}",
        segment.selector, segment.base, segment.limit, segment.attributes.0
    )
}

fn table_text(table: &TableRegister) -> String {
    format!("base {:#x}, limit {:#x}", table.base, table.limit)
}

fn native(context: &NativeContext) -> Vec<Field> {
    let mut fields: Vec<Field> = GPR
        .iter()
        .zip(context.gpr)
        .map(|(name, value)| Field::new(*name, Hex(value)))
        .collect();
    fields.extend([
        Field::new("rip", Hex(context.rip)),
        Field::new("rflags", Hex(context.rflags)),
        Field::new("cs", segment_text(&context.cs)),
        Field::new("ds es fs ss", segment_text(&context.data)),
        Field::new("gs_base", Hex(context.gs_base)),
        Field::new("gdtr", table_text(&context.gdtr)),
        Field::new("idtr", table_text(&context.idtr)),
        Field::new("cr0", Hex(context.cr0)),
        Field::new("cr3", Hex(context.cr3)),
        Field::new("cr4", Hex(context.cr4)),
        Field::new("efer", Hex(context.efer)),
    ]);
    fields
}

pub(crate) fn vbs_name(name: VbsRegisterName) -> String {
    match name {
        VbsRegisterName::MtrrPhysBase(pair) => format!("mtrr_phys_base{pair}"),
        VbsRegisterName::MtrrPhysMask(pair) => format!("mtrr_phys_mask{pair}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

pub(crate) fn vbs_value(value: &VbsValue) -> String {
    match value {
        VbsValue::U64(value) => Hex(*value).to_string(),
        VbsValue::Segment(segment) => segment_text(segment),
        VbsValue::Table(table) => table_text(table),
    }
}

const AARCH64_PC: u32 = 0x0002_0022;

/// Names of the registers that an AArch64 list may hold (Hyper-V's register interface).
fn aarch64_name(number: u32) -> Option<&'static str> {
    const X: [&str; 8] = ["x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7"];
    match number {
        0x0002_0000..=0x0002_0007 => X.get((number & 7) as usize).copied(),
        AARCH64_PC => Some("pc"),
        0x0002_0023 => Some("cpsr"),
        0x0004_0002 => Some("sctlr_el1"),
        0x0004_0005 => Some("ttbr0_el1"),
        0x0004_0006 => Some("ttbr1_el1"),
        0x0004_0007 => Some("tcr_el1"),
        0x0004_000B => Some("mair_el1"),
        0x0004_000C => Some("vbar_el1"),
        _ => None,
    }
}

/// The CCA context: x0 to x7, pc, flags, eight bytes each (igvm-format section 2).
fn cca_registers(bytes: &[u8]) -> Vec<Field> {
    let names = ["x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "pc", "flags"];
    names
        .into_iter()
        .enumerate()
        .map(|(index, name)| Field::new(name, Hex(number(bytes, 8 * index, 8))))
        .collect()
}

fn cca_start(bytes: &[u8]) -> Start {
    Start {
        mode: "aarch64 realm".to_owned(),
        entry: Some(number(bytes, 64, 8)),
    }
}

/// A little-endian number of at most eight bytes; bytes beyond the end count as zero.
fn number(bytes: &[u8], offset: usize, size: usize) -> u64 {
    let mut raw = [0; 8];
    for (place, at) in raw.iter_mut().zip(offset..offset.saturating_add(size.min(8))) {
        *place = bytes.get(at).copied().unwrap_or(0);
    }
    u64::from_le_bytes(raw)
}

/// A segment as a VMSA holds it: selector, attributes, limit, base.
fn vmsa_segment(page: &[u8], offset: usize) -> SegmentRegister {
    SegmentRegister {
        selector: number(page, offset, 2) as u16,
        attributes: SegmentAttributes::from_vmcb(number(page, offset + 2, 2) as u16),
        limit: number(page, offset + 4, 4) as u32,
        base: number(page, offset + 8, 8),
    }
}

fn vmsa_start(page: &[u8]) -> Start {
    use vmsa::offset as at;
    let value = |offset| number(page, offset, 8);
    start(
        value(at::CR0),
        value(at::EFER),
        &vmsa_segment(page, at::CS),
        value(at::RIP),
    )
}

fn vmsa_registers(page: &[u8]) -> Vec<Field> {
    let mut fields = Vec::new();
    for field in VMSA_FIELDS {
        if let Some(value) = vmsa_value(page, field.offset) {
            fields.push(Field::new(field.name.to_lowercase(), value));
        }
    }
    fields
}

/// The text of the VMSA field at `offset`; `None` when all its bytes are zero or no field starts there.
pub(crate) fn vmsa_value(page: &[u8], offset: usize) -> Option<String> {
    let field = field_at(offset)?;
    let bytes = page.get(field.offset..field.offset + field.size)?;
    let first = bytes.iter().position(|&byte| byte != 0)?;
    Some(match field.size {
        16 => segment_text(&vmsa_segment(page, field.offset)),
        size @ 0..=8 => Hex(number(page, field.offset, size)).to_string(),
        size => {
            let set = bytes.iter().filter(|&&byte| byte != 0).count();
            format!(
                "{set} of {size} bytes not zero, first at {:#x}",
                field.offset + first
            )
        }
    })
}

/// CR3 of a context in 64-bit paging, for x86 forms.
pub(crate) fn long_mode_root(state: &VpState<'_>) -> Option<u64> {
    let (control, extended, root) = match state {
        VpState::Vmsa(page) => {
            use vmsa::offset as at;
            let value = |offset| number(page, offset, 8);
            (value(at::CR0), value(at::EFER), value(at::CR3))
        }
        _ => {
            let state = state.to_x86()?;
            (state.cr0, state.efer, state.cr3)
        }
    };
    (control & cr0::PG != 0 && extended & (efer::LMA | efer::LME) != 0).then_some(root)
}

/// Base and length of the GDT that a context names; `None` when it names none.
pub(crate) fn gdt(state: &VpState<'_>) -> Option<(u64, u64)> {
    let table = match state {
        VpState::Vmsa(page) => {
            let segment = vmsa_segment(page, vmsa::offset::GDTR);
            TableRegister {
                base: segment.base,
                limit: segment.limit as u16,
            }
        }
        _ => state.to_x86()?.gdtr,
    };
    (table.base != 0 && table.limit != 0).then_some((table.base, u64::from(table.limit) + 1))
}
