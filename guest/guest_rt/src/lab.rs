// SPDX-License-Identifier: MIT
//! Runs a piece of code in a chosen processor state and says which event ended it.
//!
//! Always true: the code is entered by IRETQ and left by the first exception or interrupt, of whichever
//! vector; the registers, the frame that the processor pushed and CR2 are kept; tables that a case changed
//! stay changed until [`restore`]. Code and data of cases are in the window, 4 KiB pages at [`WINDOW`] whose
//! page table entries of all levels a case may change. Not here: what should happen (the payload's
//! transcript, compared by a test).

use crate::cpu::{self, TableRegister};
use crate::{memory, paging};
use core::arch::global_asm;
use core::cell::UnsafeCell;
use guest_protocol::flat::FREE_GPA;

/// First address of the window.
pub const WINDOW: u64 = 0x4000_0000;
/// Pages of the window that have page table entries of their own.
pub const PAGES: u64 = 16;
/// Where the window's 2 MiB page is.
pub const LARGE: u64 = WINDOW + 0x20_0000;
/// Offset of a case's code in the window.
pub const CODE: u64 = 0x100;
/// Top of the stack that a case starts with: the end of page 2.
pub const STACK: u64 = WINDOW + 0x3000;
/// Index of the page for data.
pub const DATA_PAGE: u64 = 4;
/// The page for data.
pub const DATA: u64 = WINDOW + DATA_PAGE * 0x1000;
/// Present, writable, user, accessed, dirty.
pub const RWU: u64 = 0x67;
/// Present, writable, accessed, dirty.
pub const RW: u64 = 0x63;

/// Selectors of [`restore`]'s descriptor table.
#[allow(missing_docs)]
pub mod selector {
    pub const CODE64: u64 = 0x08;
    pub const DATA: u64 = 0x10;
    pub const CODE32: u64 = 0x18;
    pub const USER32: u64 = 0x23;
    pub const USER_DATA: u64 = 0x2B;
    pub const USER64: u64 = 0x33;
    pub const TSS: u64 = 0x40;
    /// First of the free slots.
    pub const FREE: u64 = 0x50;
}

/// Descriptors for [`set_descriptor`].
#[allow(missing_docs)]
pub mod descriptor {
    pub const CODE64: u64 = 0x00AF_9B00_0000_FFFF;
    pub const DATA: u64 = 0x00CF_9300_0000_FFFF;
    pub const CODE32: u64 = 0x00CF_9B00_0000_FFFF;
    pub const USER32: u64 = 0x00CF_FB00_0000_FFFF;
    pub const USER_DATA: u64 = 0x00CF_F300_0000_FFFF;
    pub const USER64: u64 = 0x00AF_FB00_0000_FFFF;
    pub const PRESENT: u64 = 1 << 47;
    /// Conforming, of code.
    pub const CONFORMING: u64 = 1 << 42;
    /// Readable, of code; writable, of data.
    pub const READ_WRITE: u64 = 1 << 41;
}

const GDT_SLOTS: usize = 32;
const IDT_GATES: usize = 256;
/// The stacks: of ring 0 entries, of the interrupt stack table's first two entries.
const STACK_BYTES: usize = 0x1000;

/// What a case starts with, and what it left.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct State {
    /// RAX RCX RDX RBX RSP RBP RSI RDI R8-R15; RSP is in the frame.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Code segment.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack segment.
    pub ss: u64,
    /// DS, ES, FS, GS.
    pub data: [u64; 4],
    /// The event's vector.
    pub vector: u64,
    /// Its error code, 0 when it has none.
    pub error: u64,
    /// CR2 after the event.
    pub cr2: u64,
    /// The stack pointer right before the frame was pushed.
    pub handler_rsp: u64,
    /// Where the lab goes back to: its own.
    pub lab_rsp: u64,
}

#[repr(C, align(4096))]
struct Tables {
    pd: [u64; 512],
    pt: [u64; 512],
    gdt: [u64; GDT_SLOTS],
    idt: [[u64; 2]; IDT_GATES],
    tss: [u8; 0x100],
    stacks: [[u8; STACK_BYTES]; 3],
}

#[repr(transparent)]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: one processor runs cases, one at a time, and no interrupt handler returns into them.
unsafe impl<T> Sync for Shared<T> {}

const NOTHING: State = State {
    gpr: [0; 16],
    rip: 0,
    cs: 0,
    rflags: 0,
    rsp: 0,
    ss: 0,
    data: [0; 4],
    vector: 0,
    error: 0,
    cr2: 0,
    handler_rsp: 0,
    lab_rsp: 0,
};

#[unsafe(no_mangle)]
static guest_rt_lab: Shared<State> = Shared(UnsafeCell::new(NOTHING));

static TABLES: Shared<Tables> = Shared(UnsafeCell::new(Tables {
    pd: [0; 512],
    pt: [0; 512],
    gdt: [0; GDT_SLOTS],
    idt: [[0; 2]; IDT_GATES],
    tss: [0; 0x100],
    stacks: [[0; STACK_BYTES]; 3],
}));

// guest_rt_lab_enter loads the state and goes there; each vector's stub stores what came and returns from it.
global_asm!(
    ".balign 16",
    "guest_rt_lab_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    ".if ((0x60227d00 >> vector) & 1) == 0 || vector > 31",
    "push 0",
    ".endif",
    "push vector",
    "jmp guest_rt_lab_event",
    ".set vector, vector + 1",
    ".endr",
    ".balign 16",
    "guest_rt_lab_enter:",
    push_saved!(),
    "mov [rip + guest_rt_lab + 0xe8], rsp",
    "mov ds, word ptr [rip + guest_rt_lab + 0xa8]",
    "mov es, word ptr [rip + guest_rt_lab + 0xb0]",
    "mov fs, word ptr [rip + guest_rt_lab + 0xb8]",
    "mov gs, word ptr [rip + guest_rt_lab + 0xc0]",
    "push [rip + guest_rt_lab + 0xa0]",
    "push [rip + guest_rt_lab + 0x98]",
    "push [rip + guest_rt_lab + 0x90]",
    "push [rip + guest_rt_lab + 0x88]",
    "push [rip + guest_rt_lab + 0x80]",
    "mov rax, [rip + guest_rt_lab + 0x00]",
    "mov rcx, [rip + guest_rt_lab + 0x08]",
    "mov rdx, [rip + guest_rt_lab + 0x10]",
    "mov rbx, [rip + guest_rt_lab + 0x18]",
    "mov rbp, [rip + guest_rt_lab + 0x28]",
    "mov rsi, [rip + guest_rt_lab + 0x30]",
    "mov rdi, [rip + guest_rt_lab + 0x38]",
    "mov r8, [rip + guest_rt_lab + 0x40]",
    "mov r9, [rip + guest_rt_lab + 0x48]",
    "mov r10, [rip + guest_rt_lab + 0x50]",
    "mov r11, [rip + guest_rt_lab + 0x58]",
    "mov r12, [rip + guest_rt_lab + 0x60]",
    "mov r13, [rip + guest_rt_lab + 0x68]",
    "mov r14, [rip + guest_rt_lab + 0x70]",
    "mov r15, [rip + guest_rt_lab + 0x78]",
    "guest_rt_lab_iret:",
    "iretq",
    "guest_rt_lab_event:",
    "mov [rip + guest_rt_lab + 0x00], rax",
    "mov [rip + guest_rt_lab + 0x08], rcx",
    "mov [rip + guest_rt_lab + 0x10], rdx",
    "mov [rip + guest_rt_lab + 0x18], rbx",
    "mov [rip + guest_rt_lab + 0x28], rbp",
    "mov [rip + guest_rt_lab + 0x30], rsi",
    "mov [rip + guest_rt_lab + 0x38], rdi",
    "mov [rip + guest_rt_lab + 0x40], r8",
    "mov [rip + guest_rt_lab + 0x48], r9",
    "mov [rip + guest_rt_lab + 0x50], r10",
    "mov [rip + guest_rt_lab + 0x58], r11",
    "mov [rip + guest_rt_lab + 0x60], r12",
    "mov [rip + guest_rt_lab + 0x68], r13",
    "mov [rip + guest_rt_lab + 0x70], r14",
    "mov [rip + guest_rt_lab + 0x78], r15",
    "pop rax",
    "mov [rip + guest_rt_lab + 0xc8], rax",
    "pop rax",
    "mov [rip + guest_rt_lab + 0xd0], rax",
    "pop rax",
    "mov [rip + guest_rt_lab + 0x80], rax",
    "pop rax",
    "mov [rip + guest_rt_lab + 0x88], rax",
    "pop rax",
    "mov [rip + guest_rt_lab + 0x90], rax",
    "pop rax",
    "mov [rip + guest_rt_lab + 0x98], rax",
    "pop rax",
    "mov [rip + guest_rt_lab + 0xa0], rax",
    "mov [rip + guest_rt_lab + 0xe0], rsp",
    "mov rax, cr2",
    "mov [rip + guest_rt_lab + 0xd8], rax",
    "mov eax, ds",
    "mov [rip + guest_rt_lab + 0xa8], rax",
    "mov eax, es",
    "mov [rip + guest_rt_lab + 0xb0], rax",
    "mov eax, fs",
    "mov [rip + guest_rt_lab + 0xb8], rax",
    "mov eax, gs",
    "mov [rip + guest_rt_lab + 0xc0], rax",
    "mov eax, 0x10",
    "mov ss, eax",
    "mov rsp, [rip + guest_rt_lab + 0xe8]",
    "mov ds, eax",
    "mov es, eax",
    "mov fs, eax",
    "mov gs, eax",
    "push 2",
    "popfq",
    pop_saved!(),
    "ret",
);

unsafe extern "C" {
    static guest_rt_lab_stubs: u8;
    static guest_rt_lab_iret: u8;
    fn guest_rt_lab_enter();
}

/// Defines a function that gives the bytes of assembly text.
#[macro_export]
macro_rules! snippet {
    ($name:ident: $($line:literal),+ $(,)?) => {
        core::arch::global_asm!(
            ".text",
            concat!("\"", module_path!(), "::", stringify!($name), "\":"),
            $($line,)+
            ".code64",
            concat!("\"", module_path!(), "::", stringify!($name), "_end\":"),
        );
        fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!(module_path!(), "::", stringify!($name))]
                static START: u8;
                #[link_name = concat!(module_path!(), "::", stringify!($name), "_end")]
                static END: u8;
            }
            let start = (&raw const START) as u64;
            $crate::memory::bytes(start, ((&raw const END) as u64 - start) as usize)
        }
    };
}

fn tables() -> *mut Tables {
    TABLES.0.get()
}

/// Page directory and page table entries, descriptors and gates by address.
macro_rules! field_address {
    ($($(#[$doc:meta])* $name:ident($index:ident) = $field:ident[$stride:literal];)+) => {$(
        $(#[$doc])*
        pub fn $name($index: u64) -> u64 {
            // SAFETY: only an address is computed.
            (unsafe { &raw mut (*tables()).$field }) as u64 + $index * $stride
        }
    )+};
}

field_address! {
    /// Address of the window's page directory entry `index`: 0 names the page table, 1 the 2 MiB page.
    directory_entry(index) = pd[8];
    /// Address of the page table entry of a page.
    page_entry(page) = pt[8];
    /// Address of a descriptor, by selector divided by 8.
    gdt_slot(slot) = gdt[8];
    /// Address of a vector's gate.
    gate(vector) = idt[16];
    /// Address of a byte of the task state segment.
    task_state(offset) = tss[1];
}

/// Address of the page directory pointer that leads to the window.
pub fn pointer_entry() -> u64 {
    root_table() + 8
}

fn root_table() -> u64 {
    memory::read_u64(paging::root()) & 0x000F_FFFF_FFFF_F000
}

/// Top of the stack that gates use: 0 is ring 0's, 1 and 2 the interrupt stack table's.
pub fn stack_top(which: u64) -> u64 {
    // SAFETY: only an address is computed.
    (unsafe { &raw mut (*tables()).stacks }) as u64 + (which + 1) * STACK_BYTES as u64
}

/// Puts a descriptor into the table.
pub fn set_descriptor(selector: u64, value: u64) {
    memory::write_u64(gdt_slot(selector >> 3), value);
}

/// Puts a 16-byte system descriptor or call gate into the table.
pub fn set_wide_descriptor(selector: u64, value: [u64; 2]) {
    set_descriptor(selector, value[0]);
    set_descriptor(selector + 8, value[1]);
}

/// A system segment descriptor (Intel SDM volume 3, 7.2.3).
pub fn system_descriptor(base: u64, limit: u64, kind: u64) -> [u64; 2] {
    let low = limit & 0xFFFF | (base & 0xFF_FFFF) << 16 | kind << 40 | 1 << 47 | (base >> 24 & 0xFF) << 56;
    [low, base >> 32]
}

/// A gate to `to` (Intel SDM volume 3, 5.8.3 and 7.14.1): type and DPL in `attributes` (byte 5).
pub fn gate_to(to: u64, selector: u64, attributes: u64, ist: u64) -> [u64; 2] {
    let low = to & 0xFFFF | selector << 16 | ist << 32 | attributes << 40 | (to >> 16 & 0xFFFF) << 48;
    [low, to >> 32]
}

/// The gate of a vector, to the lab's stub.
pub fn set_gate(vector: u64, attributes: u64, ist: u64) {
    set_gate_selector(vector, attributes, ist, selector::CODE64);
}

/// The same with another code selector.
pub fn set_gate_selector(vector: u64, attributes: u64, ist: u64, selector: u64) {
    let stub = (&raw const guest_rt_lab_stubs) as u64 + 16 * vector;
    let [low, high] = gate_to(stub, selector, attributes, ist);
    memory::write_u64(gate(vector), low);
    memory::write_u64(gate(vector) + 8, high);
}

/// Fills all tables as they are at the start of every case and loads them.
pub fn restore() {
    memory::write_u64(paging::root(), root_table() | 0x67);
    memory::write_u64(pointer_entry(), directory_entry(0) | 0x67);
    memory::write_u64(directory_entry(0), page_entry(0) | 0x67);
    memory::write_u64(directory_entry(1), (FREE_GPA + 0x20_0000) | 0xE7);
    for page in 0..PAGES {
        set_page(page, RWU);
    }
    let fixed = [
        descriptor::CODE64,
        descriptor::DATA,
        descriptor::CODE32,
        descriptor::USER32,
        descriptor::USER_DATA,
        descriptor::USER64,
    ];
    for (slot, value) in (1..).zip(fixed) {
        memory::write_u64(gdt_slot(slot), value);
    }
    for slot in selector::FREE / 8..GDT_SLOTS as u64 {
        memory::write_u64(gdt_slot(slot), 0);
    }
    for at in (0..0x68).step_by(4) {
        memory::write_u32(task_state(at), 0);
    }
    memory::write(task_state(0x04), &stack_top(0).to_le_bytes());
    memory::write(task_state(0x24), &stack_top(1).to_le_bytes());
    memory::write(task_state(0x2C), &stack_top(2).to_le_bytes());
    memory::write_u16(task_state(0x66), 0x68);
    set_wide_descriptor(selector::TSS, system_descriptor(task_state(0), 0x67, 9));
    for vector in 0..IDT_GATES as u64 {
        set_gate(vector, 0x8E, 1);
    }
    set_gate(0x80, 0xEE, 1);
    cpu::load_gdt(&TableRegister {
        limit: (GDT_SLOTS * 8 - 1) as u16,
        base: gdt_slot(0),
    });
    load_idt(IDT_GATES as u16 * 16 - 1);
    cpu::load_task_register(selector::TSS as u16);
    cpu::set_cr3(cpu::cr3());
}

/// Loads the lab's IDT with another limit.
pub fn load_idt(limit: u16) {
    cpu::load_idt(&TableRegister { limit, base: gate(0) });
}

/// The entry of a window's page: its own frame with these flags.
pub fn set_page(page: u64, flags: u64) {
    memory::write_u64(page_entry(page), frame(page) | flags);
}

/// gpa of the frame of a window's page.
pub fn frame(page: u64) -> u64 {
    FREE_GPA + page * 0x1000
}

/// A case in 64-bit ring 0 with interrupts off; its code is at [`CODE`] of the window.
pub fn kernel(code: &[u8]) -> State {
    memory::write(frame(0) + CODE, code);
    // Whatever runs past the end stops there.
    memory::write(frame(0) + CODE + code.len() as u64, &[0xCD, 0x81]);
    State {
        rip: WINDOW + CODE,
        cs: selector::CODE64,
        rflags: 2,
        rsp: STACK,
        ss: selector::DATA,
        data: [selector::DATA; 4],
        ..NOTHING
    }
}

/// A case in 64-bit ring 3.
pub fn user(code: &[u8]) -> State {
    State {
        cs: selector::USER64,
        ss: selector::USER_DATA,
        data: [selector::USER_DATA; 4],
        ..kernel(code)
    }
}

/// A case in 32-bit ring 0 of compatibility mode.
pub fn kernel32(code: &[u8]) -> State {
    State {
        cs: selector::CODE32,
        ..kernel(code)
    }
}

/// A case in 32-bit ring 3 of compatibility mode.
pub fn user32(code: &[u8]) -> State {
    State {
        cs: selector::USER32,
        ..user(code)
    }
}

impl State {
    /// Runs the case until its event.
    pub fn run(&self) -> Self {
        cpu::set_cr3(cpu::cr3());
        let state = guest_rt_lab.0.get();
        // SAFETY: the entry code keeps what the calling convention says, and every vector comes back; the
        // state is only used there and here.
        unsafe {
            state.write_volatile(*self);
            guest_rt_lab_enter();
            state.read_volatile()
        }
    }

    /// Whether the lab's own IRETQ took the event.
    pub fn is_at_entry(&self) -> bool {
        self.rip == (&raw const guest_rt_lab_iret) as u64
    }
}
