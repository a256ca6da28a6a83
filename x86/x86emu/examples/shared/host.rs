// SPDX-License-Identifier: MIT
//! The oracle of the differential runner: executes one instruction on the host with every register
//! given, and takes every register back. Faults of the instruction are caught.
//!
//! Always true: code and data lie at fixed linear addresses, so that the engine can use the same ones.
//! Not here: which instructions; the caller gives only ones that a user program may execute, with memory
//! operands inside the data area.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Linear address of the code page; the instruction is at [`INSTRUCTION`].
pub(crate) const CODE: u64 = 0x1000_0000;
/// Linear address of the instruction.
pub(crate) const INSTRUCTION: u64 = CODE + 0x400;
/// Linear address of the data area.
pub(crate) const DATA: u64 = 0x1001_0000;
/// Bytes of the data area.
pub(crate) const DATA_LEN: usize = 0x2000;
/// Where registers are kept, far from the code.
const FRAME: u64 = 0x1002_0000;
const MAP_LEN: usize = 0x3_0000;

/// Registers before and after an instruction.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Registers {
    /// General purpose registers in encoding order.
    pub(crate) gpr: [u64; 16],
    /// Status flags and DF.
    pub(crate) flags: u64,
    /// FXSAVE image.
    pub(crate) fx: [u8; 512],
}

/// Layout of the page at [`FRAME`].
#[repr(C, align(64))]
struct Frame {
    fx_in: [u8; 512],
    fx_out: [u8; 512],
    gpr_in: [u64; 16],
    gpr_out: [u64; 16],
    flags_in: u64,
    flags_out: u64,
    host_rsp: u64,
    host_mxcsr: u32,
    /// Offset and selector of the instruction for the far jump to it.
    far: [u8; 8],
}

const FX_OUT: u64 = FRAME + 512;
const GPR_IN: u64 = FRAME + 1024;
const GPR_OUT: u64 = GPR_IN + 128;
const FLAGS_IN: u64 = GPR_OUT + 128;
const FLAGS_OUT: u64 = FLAGS_IN + 8;
const HOST_RSP: u64 = FLAGS_OUT + 8;
const HOST_MXCSR: u64 = HOST_RSP + 8;
const FAR: u64 = HOST_MXCSR + 4;
/// User code selectors of the host's kernel.
const CODE32: u16 = 0x23;
const CODE64: u16 = 0x33;
const USER_DATA: u8 = 0x2B;

/// The one user of the fixed mappings.
pub(crate) struct Host {
    alternate_stack: Vec<u8>,
}

static FAULTED: AtomicBool = AtomicBool::new(false);
static RESUME: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_fault(signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid ucontext to a handler with SA_SIGINFO.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let rip = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
    if (INSTRUCTION..INSTRUCTION + 16).contains(&(*rip as u64)) {
        FAULTED.store(true, Ordering::SeqCst);
        *rip = RESUME.load(Ordering::SeqCst) as i64;
        return;
    }
    // Not ours: die by the default action.
    // SAFETY: resetting a signal's action has no preconditions.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// `op reg, [absolute]` with a 32-bit absolute address.
fn absolute(code: &mut Vec<u8>, op: &[u8], reg: u8, address: u64) {
    if reg >= 8 || op[0] == 0x8B || op[0] == 0x89 {
        code.push(0x48 | if reg >= 8 { 4 } else { 0 });
    }
    code.extend(op);
    code.extend([4 | (reg & 7) << 3, 0x25]);
    code.extend((address as u32).to_le_bytes());
}

impl Host {
    /// Maps the areas and installs the fault handlers.
    pub(crate) fn new() -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let rights = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        // SAFETY: a fresh anonymous mapping that replaces nothing.
        let p = unsafe { libc::mmap(CODE as *mut libc::c_void, MAP_LEN, rights, flags, -1, 0) };
        assert_eq!(p as u64, CODE, "the fixed address is taken");
        let mut host = Self {
            alternate_stack: vec![0; 1 << 16],
        };
        host.install();
        host.write_entry();
        host
    }

    fn install(&mut self) {
        // SAFETY: the stack outlives every run (it is owned by self, which lives to the program's end in
        // both users), and the action structure is fully initialised.
        unsafe {
            let stack = libc::stack_t {
                ss_sp: self.alternate_stack.as_mut_ptr().cast(),
                ss_flags: 0,
                ss_size: self.alternate_stack.len(),
            };
            libc::sigaltstack(&stack, std::ptr::null_mut());
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            for s in [
                libc::SIGFPE,
                libc::SIGSEGV,
                libc::SIGILL,
                libc::SIGBUS,
                libc::SIGTRAP,
            ] {
                libc::sigaction(s, &action, std::ptr::null_mut());
            }
        }
    }

    fn poke(at: u64, bytes: &[u8]) {
        // SAFETY: callers stay inside the mapping made by `new`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
    }

    /// The code before the instruction: every register is loaded.
    fn write_entry(&mut self) {
        let mut c = vec![0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57];
        absolute(&mut c, &[0x89], 4, HOST_RSP);
        absolute(&mut c, &[0x0F, 0xAE], 1, FRAME);
        // mov eax, USER_DATA; mov ds, eax; mov es, eax: 32-bit code needs them.
        c.extend([0xB8, USER_DATA, 0, 0, 0, 0x8E, 0xD8, 0x8E, 0xC0]);
        c.extend([0xFF, 0x34, 0x25]);
        c.extend((FLAGS_IN as u32).to_le_bytes());
        c.push(0x9D);
        for r in 0..16u8 {
            absolute(&mut c, &[0x8B], r, GPR_IN + u64::from(r) * 8);
        }
        // jmp far [FAR]
        c.extend([0xFF, 0x2C, 0x25]);
        c.extend((FAR as u32).to_le_bytes());
        Self::poke(CODE, &c);
    }

    /// Places an instruction, with the code that takes the registers back behind it.
    /// `long` says whether it is 64-bit code, else 32-bit.
    pub(crate) fn place(&mut self, bytes: &[u8], long: bool) {
        let mut c = bytes.to_vec();
        RESUME.store(INSTRUCTION + c.len() as u64, Ordering::SeqCst);
        let selector = if long { CODE64 } else { CODE32 };
        let mut far = (INSTRUCTION as u32).to_le_bytes().to_vec();
        far.extend(selector.to_le_bytes());
        Self::poke(FAR, &far);
        if !long {
            // ljmp CODE64:next
            c.push(0xEA);
            let next = INSTRUCTION + c.len() as u64 + 6;
            c.extend((next as u32).to_le_bytes());
            c.extend(CODE64.to_le_bytes());
        }
        for r in 0..16u8 {
            absolute(&mut c, &[0x89], r, GPR_OUT + u64::from(r) * 8);
        }
        absolute(&mut c, &[0x8B], 4, HOST_RSP);
        c.push(0x9C);
        c.extend([0x8F, 0x04, 0x25]);
        c.extend((FLAGS_OUT as u32).to_le_bytes());
        absolute(&mut c, &[0x0F, 0xAE], 0, FX_OUT);
        c.extend([0xFC, 0xDB, 0xE3]);
        absolute(&mut c, &[0x0F, 0xAE], 2, HOST_MXCSR);
        c.extend([0x41, 0x5F, 0x41, 0x5E, 0x41, 0x5D, 0x41, 0x5C, 0x5D, 0x5B, 0xC3]);
        Self::poke(INSTRUCTION, &c);
    }

    /// Fills the data area.
    pub(crate) fn set_data(&mut self, data: &[u8]) {
        Self::poke(DATA, &data[..data.len().min(DATA_LEN)]);
    }
    /// The data area.
    pub(crate) fn data(&self) -> &[u8] {
        // SAFETY: inside the mapping, which is never removed; what writes it (`set_data`, `run`) borrows self
        // exclusively.
        unsafe { std::slice::from_raw_parts(DATA as *const u8, DATA_LEN) }
    }

    /// Executes the placed instruction; `None` if it faulted.
    pub(crate) fn run(&mut self, before: &Registers) -> Option<Registers> {
        let frame = FRAME as *mut Frame;
        // SAFETY: the frame is inside the mapping; the code at CODE is a function that preserves what a
        // call must preserve (see `write_entry` and `place`), with FPU exceptions masked by the image.
        unsafe {
            (*frame).fx_in = before.fx;
            (*frame).gpr_in = before.gpr;
            (*frame).flags_in = before.flags | 0x202;
            (*frame).host_mxcsr = 0x1F80;
            FAULTED.store(false, Ordering::SeqCst);
            let f: extern "sysv64" fn() = std::mem::transmute(CODE as usize);
            f();
            let after = Registers {
                gpr: (*frame).gpr_out,
                flags: (*frame).flags_out,
                fx: (*frame).fx_out,
            };
            (!FAULTED.load(Ordering::SeqCst)).then_some(after)
        }
    }
}
