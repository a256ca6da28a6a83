// SPDX-License-Identifier: MIT
//! The lab in the processor's older modes: 2-level and PAE paging, 32-bit protected mode, real mode.
//!
//! Always true: a case starts from 64-bit mode, switches down, is entered by IRET and ended by the first
//! exception or interrupt, and the processor is back in 64-bit mode with `lab`'s tables afterwards. Code,
//! state, tables and stacks are below 64 KiB, one to one in every mode; [`PAGE`] is the page whose mapping a
//! case may change. Not here: what should happen (the payload's transcript, compared by a test).

use crate::{lab, memory};
use core::arch::global_asm;

/// Where the mode switches are copied to.
const SWITCH: u64 = 0x8000;
/// [`Case`], as the assembly below knows it; behind it what 64-bit mode gets back, and table registers.
const STATE: u64 = 0x9000;
const IDTR: u64 = 0x90E0;
const GDTR: u64 = 0x90F0;
const GDT: u64 = 0x9100;
const TASK_STATE: u64 = 0x9300;
const IDT: u64 = 0xA000;
const IVT: u64 = 0xA800;
/// First byte of a case's code.
pub const CODE: u64 = 0xB000;
/// Top of the stack that a case starts with.
pub const STACK: u64 = 0xD000;
/// Top of the stack that ring 3 is left for.
pub const RING0_STACK: u64 = 0xE000;
/// A page for data.
pub const DATA: u64 = 0xE000;
/// Page directory, or page directory pointers.
pub const ROOT: u64 = 0x1_0000;
/// Page directory of PAE paging.
pub const DIRECTORY: u64 = 0x1_1000;
/// Page table of [`PAGE`].
pub const TABLE: u64 = 0x1_2000;
/// Frame of [`PAGE`].
pub const FRAME: u64 = 0x1_3000;
/// A linear address whose mapping belongs to the case.
pub const PAGE: u64 = 0x40_1000;
/// Vectors that have gates.
const VECTORS: u64 = 64;
/// The vector of a case that ran to its end; ring 3 may use its gate.
pub const DONE: u64 = 0x3F;
/// GDT entries, of which [`selector::FREE`] and up are the case's.
const GDT_SLOTS: u64 = 24;

/// Selectors of a case's descriptor table.
#[allow(missing_docs)]
pub mod selector {
    pub const DATA: u32 = 0x10;
    pub const CODE32: u32 = 0x18;
    pub const USER_CODE: u32 = 0x33;
    pub const USER_DATA: u32 = 0x3B;
    pub const FREE: u32 = 0x48;
}

const FIXED_DESCRIPTORS: [u64; 7] = [
    lab::descriptor::CODE64,
    lab::descriptor::DATA,
    lab::descriptor::CODE32,
    0x0000_9B00_0000_FFFF,
    0x0000_9300_0000_FFFF,
    lab::descriptor::USER32,
    lab::descriptor::USER_DATA,
];

/// How a case's addresses are translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paging {
    /// Not at all.
    Off,
    /// 2 levels of 32-bit entries, 4 MiB pages.
    TwoLevel,
    /// 3 levels of 64-bit entries.
    Pae,
}

/// What a case starts with, and what it left.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Case {
    /// EAX ECX EDX EBX ESP EBP ESI EDI.
    pub gpr: [u32; 8],
    /// Instruction pointer.
    pub eip: u32,
    /// Code segment.
    pub cs: u32,
    /// Flags.
    pub eflags: u32,
    /// Stack segment, of ring 3.
    pub ss: u32,
    /// DS, ES, FS and GS.
    pub data: u32,
    /// CR0.
    pub cr0: u32,
    cr3: u32,
    cr4: u32,
    /// EFER, without long mode.
    pub efer: u32,
    /// The event's vector.
    pub vector: u32,
    /// Its error code, 0 when it has none.
    pub error: u32,
    /// CR2 after the event.
    pub cr2: u32,
    /// The stack pointer right behind the frame that the event pushed: at the instruction pointer.
    pub handler_esp: u32,
    real: u32,
}

const PE: u32 = 1;
const ET_NE: u32 = 0x30;
const PG: u32 = 1 << 31;
const PSE: u32 = 1 << 4;
const PAE: u32 = 1 << 5;

/// CR0.WP.
pub const WP: u32 = 1 << 16;
/// EFER.NXE.
pub const NXE: u32 = 1 << 11;

/// Flat 32-bit segments and a stack, and no paging any more: between 64-bit mode and a case, both ways.
macro_rules! without_paging {
    () => {
        "mov eax, 0x10\nmov ds, eax\nmov es, eax\nmov fs, eax\nmov gs, eax\nmov ss, eax\nmov esp, 0xe000\n\
         mov eax, cr0\nand eax, 0x7fffffff\nmov cr0, eax"
    };
}

// Offsets of `Case` stand as numbers. What 64-bit mode gets back is behind it: 0x9080 RSP, 0x9088 CR0, 0x9090
// CR3, 0x9098 CR4, 0x90a0 EFER. Far jumps are bytes, because their targets are where the copy is.
global_asm!(
    ".text",
    "guest_rt_legacy_enter:",
    push_saved!(),
    "mov ds:[0x9080], rsp",
    "mov rax, cr0",
    "mov ds:[0x9088], rax",
    "mov rax, cr3",
    "mov ds:[0x9090], rax",
    "mov rax, cr4",
    "mov ds:[0x9098], rax",
    "mov ecx, 0xc0000080",
    "rdmsr",
    "and eax, 0xfffffbff",
    "mov ds:[0x90a0], eax",
    "lgdt ds:[0x90f0]",
    "push 0x18",
    "push 0x8000",
    "retfq",
    ".section .rodata.legacy, \"a\"",
    "guest_rt_legacy:",
    ".code32",
    without_paging!(),
    "mov ecx, 0xc0000080",
    "mov eax, ds:[0x9040]",
    "xor edx, edx",
    "wrmsr",
    "mov eax, ds:[0x903c]",
    "mov cr4, eax",
    "mov eax, ds:[0x9038]",
    "mov cr3, eax",
    "mov eax, ds:[0x9034]",
    "mov cr0, eax",
    "lidt ds:[0x90e0]",
    "xor eax, eax",
    "lldt ax",
    "mov eax, 0x40",
    "ltr ax",
    "cmp dword ptr ds:[0x9054], 0",
    "jne 3f",
    "test byte ptr ds:[0x9024], 3",
    "jz 21f",
    "push dword ptr ds:[0x902c]",
    "push dword ptr ds:[0x9010]",
    "jmp 2f",
    "21:",
    "mov esp, ds:[0x9010]",
    "2:",
    "push dword ptr ds:[0x9028]",
    "push dword ptr ds:[0x9024]",
    "push dword ptr ds:[0x9020]",
    "mov eax, ds:[0x9030]",
    "mov es, eax",
    "mov fs, eax",
    "mov gs, eax",
    "mov ds, eax",
    "mov eax, ss:[0x9000]",
    "mov ecx, ss:[0x9004]",
    "mov edx, ss:[0x9008]",
    "mov ebx, ss:[0x900c]",
    "mov ebp, ss:[0x9014]",
    "mov esi, ss:[0x9018]",
    "mov edi, ss:[0x901c]",
    "iretd",
    // Real mode: through a 16-bit segment, so that the limits are 64 KiB.
    "3:",
    ".byte 0xea",
    ".long 4f - guest_rt_legacy + 0x8000",
    ".word 0x20",
    ".code16",
    "4:",
    "mov ax, 0x28",
    "mov ds, ax",
    "mov es, ax",
    "mov fs, ax",
    "mov gs, ax",
    "mov ss, ax",
    "mov eax, cr0",
    "and al, 0xfe",
    "mov cr0, eax",
    ".byte 0xea",
    ".word 5f - guest_rt_legacy + 0x8000",
    ".word 0",
    "5:",
    "xor ax, ax",
    "mov ds, ax",
    "mov es, ax",
    "mov fs, ax",
    "mov gs, ax",
    "mov ss, ax",
    "mov esp, cs:[0x9010]",
    "push word ptr cs:[0x9028]",
    "push word ptr cs:[0x9024]",
    "push word ptr cs:[0x9020]",
    "mov eax, cs:[0x9000]",
    "mov ecx, cs:[0x9004]",
    "mov edx, cs:[0x9008]",
    "mov ebx, cs:[0x900c]",
    "mov ebp, cs:[0x9014]",
    "mov esi, cs:[0x9018]",
    "mov edi, cs:[0x901c]",
    "iret",
    // Events of real mode.
    ".balign 16",
    "guest_rt_legacy_stubs16:",
    ".set vector, 0",
    ".rept 64",
    ".balign 8",
    ".byte 0x6a, vector",
    ".byte 0xe9",
    ".word 6f - . - 2",
    ".set vector, vector + 1",
    ".endr",
    "6:",
    "mov cs:[0x9000], eax",
    "mov cs:[0x9004], ecx",
    "mov cs:[0x9008], edx",
    "mov cs:[0x900c], ebx",
    "mov cs:[0x9014], ebp",
    "mov cs:[0x9018], esi",
    "mov cs:[0x901c], edi",
    "pop word ptr cs:[0x9044]",
    "mov cs:[0x9050], esp",
    "pop word ptr cs:[0x9020]",
    "pop word ptr cs:[0x9024]",
    "pop word ptr cs:[0x9028]",
    "mov cs:[0x9010], esp",
    "mov ax, ds",
    "mov cs:[0x9030], ax",
    "mov eax, cr0",
    "or al, 1",
    "mov cr0, eax",
    ".byte 0x66, 0xea",
    ".long 9f - guest_rt_legacy + 0x8000",
    ".word 0x18",
    // Events of protected mode: SS is flat in ring 0, the others may be anything.
    ".code32",
    ".balign 16",
    "guest_rt_legacy_stubs32:",
    ".set vector, 0",
    ".rept 64",
    ".balign 16",
    ".if ((0x60227d00 >> vector) & 1) == 0 || vector > 31",
    "push 0",
    ".endif",
    ".byte 0x6a, vector",
    ".byte 0xe9",
    ".long 7f - . - 4",
    ".set vector, vector + 1",
    ".endr",
    "7:",
    "mov ss:[0x9000], eax",
    "mov ss:[0x9004], ecx",
    "mov ss:[0x9008], edx",
    "mov ss:[0x900c], ebx",
    "mov ss:[0x9014], ebp",
    "mov ss:[0x9018], esi",
    "mov ss:[0x901c], edi",
    "pop dword ptr ss:[0x9044]",
    "pop dword ptr ss:[0x9048]",
    "mov ss:[0x9050], esp",
    "pop dword ptr ss:[0x9020]",
    "pop dword ptr ss:[0x9024]",
    "pop dword ptr ss:[0x9028]",
    "test byte ptr ss:[0x9024], 3",
    "jz 8f",
    "pop dword ptr ss:[0x9010]",
    "pop dword ptr ss:[0x902c]",
    "jmp 22f",
    "8:",
    "mov ss:[0x9010], esp",
    "22:",
    "mov eax, ds",
    "mov ss:[0x9030], eax",
    "mov eax, cr2",
    "mov ss:[0x904c], eax",
    "9:",
    without_paging!(),
    "mov eax, ds:[0x9098]",
    "mov cr4, eax",
    "mov eax, ds:[0x9090]",
    "mov cr3, eax",
    "mov ecx, 0xc0000080",
    "mov eax, ds:[0x90a0]",
    "xor edx, edx",
    "wrmsr",
    "mov eax, ds:[0x9088]",
    "mov cr0, eax",
    ".byte 0xea",
    ".long 23f - guest_rt_legacy + 0x8000",
    ".word 0x08",
    ".code64",
    "23:",
    "mov rsp, ds:[0x9080]",
    "push 2",
    "popfq",
    pop_saved!(),
    "ret",
    "guest_rt_legacy_end:",
    ".text",
);

unsafe extern "C" {
    static guest_rt_legacy: u8;
    static guest_rt_legacy_stubs16: u8;
    static guest_rt_legacy_stubs32: u8;
    static guest_rt_legacy_end: u8;
    fn guest_rt_legacy_enter();
}

/// Where a part is in the copy.
macro_rules! copied {
    ($name:ident) => {
        SWITCH + ((&raw const $name) as u64 - (&raw const guest_rt_legacy) as u64)
    };
}

/// Fills all tables as they are at the start of every case: no paging yet, [`PAGE`] not mapped.
pub fn restore() {
    let code = (&raw const guest_rt_legacy) as u64;
    memory::write(
        SWITCH,
        memory::bytes(code, (copied!(guest_rt_legacy_end) - SWITCH) as usize),
    );
    for at in (STATE..IDTR).step_by(8) {
        memory::write_u64(at, 0);
    }
    memory::write_u16(GDTR, (GDT_SLOTS * 8 - 1) as u16);
    memory::write(GDTR + 2, &GDT.to_le_bytes());
    for slot in 0..GDT_SLOTS {
        memory::write_u64(GDT + slot * 8, 0);
    }
    for (slot, value) in (1..).zip(FIXED_DESCRIPTORS) {
        memory::write_u64(GDT + slot * 8, value);
    }
    memory::write_u64(GDT + 0x40, lab::system_descriptor(TASK_STATE, 0x67, 9)[0]);
    for at in (0..0x68).step_by(4) {
        memory::write_u32(TASK_STATE + at, 0);
    }
    memory::write_u32(TASK_STATE + 4, RING0_STACK as u32);
    memory::write_u32(TASK_STATE + 8, selector::DATA);
    memory::write_u16(TASK_STATE + 0x66, 0x68);
    for vector in 0..VECTORS {
        set_gate(vector, selector::CODE32.into(), 0x8E);
        let stub = copied!(guest_rt_legacy_stubs16) + vector * 8;
        memory::write_u32(IVT + vector * 4, stub as u32);
    }
    set_gate(DONE, selector::CODE32.into(), 0xEE);
    for at in (ROOT..FRAME + 0x1000).step_by(8) {
        memory::write_u64(at, 0);
    }
}

/// The gate of a vector, to its own stub: type and DPL in `attributes` (byte 5).
pub fn set_gate(vector: u64, selector: u64, attributes: u64) {
    let stub = copied!(guest_rt_legacy_stubs32) + vector * 16;
    memory::write_u64(IDT + vector * 8, lab::gate_to(stub, selector, attributes, 0)[0]);
}

/// Puts a descriptor into the table.
pub fn set_descriptor(selector: u32, value: u64) {
    memory::write_u64(GDT + u64::from(selector & !7), value);
}

/// A case in 32-bit ring 0.
pub fn protected(code: &[u8]) -> Case {
    memory::write(CODE, code);
    memory::write(CODE + code.len() as u64, &[0xCD, DONE as u8]);
    Case {
        gpr: [0, 0, 0, 0, STACK as u32, 0, 0, 0],
        eip: CODE as u32,
        cs: selector::CODE32,
        eflags: 2,
        ss: selector::DATA,
        data: selector::DATA,
        cr0: PE | ET_NE,
        cr3: 0,
        cr4: 0,
        efer: 0,
        vector: 0,
        error: 0,
        cr2: 0,
        handler_esp: 0,
        real: 0,
    }
}

/// A case in real mode, with all segments at 0.
pub fn real(code: &[u8]) -> Case {
    Case {
        cs: 0,
        data: 0,
        real: 1,
        ..protected(code)
    }
}

impl Case {
    /// The same in ring 3.
    pub fn user(self) -> Self {
        Self {
            cs: selector::USER_CODE,
            ss: selector::USER_DATA,
            data: selector::USER_DATA,
            ..self
        }
    }

    /// With paging: the first 4 MiB one to one for everybody, and the entries that lead to [`PAGE`].
    pub fn paged(self, paging: Paging, directory: u64, entry: u64) -> Self {
        let (cr4, pg) = match paging {
            Paging::Off => (0, 0),
            Paging::TwoLevel => {
                memory::write_u32(ROOT, 0x87);
                memory::write_u32(ROOT + 4, directory as u32);
                memory::write_u32(TABLE + 4, entry as u32);
                (PSE, PG)
            }
            Paging::Pae => {
                memory::write_u64(ROOT, DIRECTORY | 1);
                memory::write_u64(DIRECTORY, 0x87);
                memory::write_u64(DIRECTORY + 8, 0x20_0087);
                memory::write_u64(DIRECTORY + 16, directory);
                memory::write_u64(TABLE + 8, entry);
                (PAE, PG)
            }
        };
        Self {
            cr0: self.cr0 | pg,
            cr3: ROOT as u32,
            cr4,
            ..self
        }
    }

    /// With CR4.PSE off: page directory entries of 2-level paging all lead to tables.
    pub fn without_large_pages(self) -> Self {
        Self {
            cr4: self.cr4 & !PSE,
            ..self
        }
    }

    /// Runs the case until its event.
    pub fn run(&self) -> Self {
        let (base, limit) = if self.real == 0 {
            (IDT, VECTORS * 8 - 1)
        } else {
            (IVT, VECTORS * 4 - 1)
        };
        memory::write_u16(IDTR, limit as u16);
        memory::write(IDTR + 2, &(base as u32).to_le_bytes());
        let state: *mut Self = core::ptr::with_exposed_provenance_mut(STATE as usize);
        // SAFETY: the page is the lab's own; the entry code keeps what the calling convention says, and every
        // vector that has a gate comes back.
        let end = unsafe {
            state.write_volatile(*self);
            guest_rt_legacy_enter();
            state.read_volatile()
        };
        lab::restore();
        end
    }
}
