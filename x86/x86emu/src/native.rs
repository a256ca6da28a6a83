// SPDX-License-Identifier: MIT
//! FPU, MMX and SSE arithmetic by the host's own units: small pieces of machine code made per
//! instruction encoding.
//!
//! Always true: the code touches only the context it is given: memory operands are rewritten to it, SSE
//! operands to XMM0, XMM1 and RAX; SSE exceptions are masked on the host; x87 exceptions that the guest
//! unmasks become pending on the host too, so that results are the ones of the manual, but no instruction
//! that would report them follows; the host's MXCSR and an empty x87 stack are restored before it returns.
//! A piece of code is written once and never changed. Together with `mem` the only module with `unsafe`.
//! Not here: exceptions of the guest, which the callers make from the status flags.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

/// Operands of an SSE instruction.
#[repr(C, align(16))]
#[derive(Clone, Copy, Default)]
pub(crate) struct SseContext {
    /// XMM0: destination.
    pub a: u128,
    /// XMM1: source.
    pub b: u128,
    /// RAX, where the instruction has a general register.
    pub gpr: u64,
    /// RFLAGS after COMISS and the like.
    pub flags: u64,
    /// Guest's MXCSR; every exception is masked by [`run_sse`].
    pub mxcsr: u32,
    pub host_mxcsr: u32,
}

/// State for an x87 or MMX instruction.
#[repr(C, align(16))]
#[derive(Clone)]
pub(crate) struct FpuContext {
    /// FXSAVE image.
    pub image: [u8; 512],
    /// The memory operand.
    pub memory: [u8; 128],
    /// RAX.
    pub gpr: u64,
    /// Status flags in and out.
    pub flags: u64,
    pub host_mxcsr: u32,
}

impl FpuContext {
    pub(crate) fn new() -> Self {
        Self {
            image: [0; 512],
            memory: [0; 128],
            gpr: 0,
            flags: 0,
            host_mxcsr: HOST_MXCSR,
        }
    }
}

/// What Rust code expects in MXCSR.
const HOST_MXCSR: u32 = 0x1F80;
const REGION: usize = 1 << 18;

/// Machine code that was made for one instruction encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Thunk(u64);

impl Thunk {
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }
}

/// The thunk that the translator put into a uop with [`Thunk::to_bits`]. Only the translator makes such
/// uops, and it pairs each kind of thunk with the handler that runs it.
pub(crate) fn thunk_from_uop(v: u64) -> Thunk {
    Thunk(v)
}

/// All code made so far. Regions are never freed: uops hold addresses into them.
struct Arena {
    region: usize,
    used: usize,
    known: HashMap<Vec<u8>, Thunk>,
}

static ARENA: LazyLock<Mutex<Arena>> = LazyLock::new(|| {
    Mutex::new(Arena {
        region: 0,
        used: REGION,
        known: HashMap::new(),
    })
});

impl Arena {
    fn add(&mut self, code: Vec<u8>) -> Option<Thunk> {
        if let Some(&t) = self.known.get(&code) {
            return Some(t);
        }
        if self.used + code.len() > REGION {
            // SAFETY: an anonymous mapping at an address that the host chooses.
            let p = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    REGION,
                    libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            if p == libc::MAP_FAILED {
                tracing::warn!("the host refuses executable memory: fpu and sse arithmetic raise #ud");
                return None;
            }
            self.region = p as usize;
            self.used = 0;
        }
        let at = self.region + self.used;
        // SAFETY: the bytes are inside the region (checked above) and no thunk uses them yet.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), at as *mut u8, code.len()) };
        self.used += code.len().next_multiple_of(16);
        let t = Thunk(at as u64);
        self.known.insert(code, t);
        Some(t)
    }
}

fn make(code: Vec<u8>) -> Option<Thunk> {
    ARENA.lock().ok()?.add(code)
}

/// Where the registers of an SSE instruction go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SseForm {
    /// The ModRM reg field is part of the opcode and rm is the destination (shifts by immediate).
    pub group: bool,
    /// rm is a general register (or memory that a general register stands for).
    pub rm_gpr: bool,
}

/// A legacy-encoded instruction taken apart.
struct Parts<'a> {
    prefixes: Vec<u8>,
    rex: u8,
    /// Escape bytes and opcode.
    opcode: &'a [u8],
    modrm: Option<u8>,
    /// Immediate.
    tail: &'a [u8],
}

/// Takes an instruction apart; `imm` is its immediate's length, `opcode` the length of escape and opcode.
fn split(bytes: &[u8], long: bool, opcode: usize, has_modrm: bool, imm: usize) -> Option<Parts<'_>> {
    let mut i = 0;
    let mut prefixes = Vec::new();
    let mut rex = 0;
    loop {
        let b = *bytes.get(i)?;
        match b {
            0x66 | 0xF2 | 0xF3 => prefixes.push(b),
            0x26 | 0x2E | 0x36 | 0x3E | 0x64 | 0x65 | 0x67 | 0xF0 => {}
            0x40..=0x4F if long => {}
            _ => break,
        }
        // REX counts only right before the opcode.
        rex = if long && b & 0xF0 == 0x40 { b } else { 0 };
        i += 1;
    }
    let end = bytes.len().checked_sub(imm)?;
    let opcode = bytes.get(i..i + opcode)?;
    let modrm = if has_modrm {
        Some(*bytes.get(i + opcode.len())?)
    } else {
        None
    };
    Some(Parts {
        prefixes,
        rex,
        opcode,
        modrm,
        tail: bytes.get(end..)?,
    })
}

/// Machine code for an SSE instruction on [`SseContext`]. `bytes` is the guest's encoding, `long` says
/// that it is from 64-bit mode, `imm` how long its immediate is.
pub(crate) fn sse_thunk(bytes: &[u8], long: bool, imm: usize, form: SseForm) -> Option<Thunk> {
    let p = split(bytes, long, 2, true, imm)?;
    let modrm = p.modrm?;
    let reg = if form.group { modrm & 0x38 } else { 0 };
    let rm = if form.rm_gpr || form.group { 0 } else { 1 };
    let mut code = vec![
        0x0F, 0xAE, 0x57, 0x30, 0x0F, 0x10, 0x07, 0x0F, 0x10, 0x4F, 0x10, 0x48, 0x8B, 0x47, 0x20,
    ];
    code.extend(&p.prefixes);
    if p.rex & 8 != 0 {
        code.push(0x48);
    }
    code.extend(p.opcode);
    code.push(0xC0 | reg | rm);
    code.extend(p.tail);
    // movups [rdi], xmm0; mov [rdi+20h], rax; pushfq; pop [rdi+28h]; stmxcsr; ldmxcsr; ret
    code.extend([0x0F, 0x11, 0x07, 0x48, 0x89, 0x47, 0x20]);
    if matches!(p.opcode, [0x0F, 0x2E | 0x2F]) {
        code.extend([0x9C, 0x8F, 0x47, 0x28]);
    }
    code.extend([0x0F, 0xAE, 0x5F, 0x30, 0x0F, 0xAE, 0x57, 0x34, 0xC3]);
    make(code)
}

/// Machine code for an x87 (`opcode` 1) or MMX (`opcode` 2) instruction on [`FpuContext`]. `gpr_rm` and
/// `gpr_reg` say that those ModRM fields name a general register.
pub(crate) fn fpu_thunk(
    bytes: &[u8],
    long: bool,
    opcode: usize,
    imm: usize,
    gpr: (bool, bool),
) -> Option<Thunk> {
    let p = split(bytes, long, opcode, true, imm).or_else(|| split(bytes, long, opcode, false, imm))?;
    let mut code = Vec::new();
    code.extend(&p.prefixes);
    let memory = p.modrm.is_some_and(|m| m < 0xC0);
    let keep = if memory { 0x4C } else { 0x4D };
    let mut rex = p.rex & keep;
    let mut modrm = p.modrm;
    if let Some(m) = &mut modrm {
        if gpr.0 && !memory {
            *m &= 0xF8;
            rex &= !1;
        }
        if gpr.1 {
            *m &= 0xC7;
            rex &= !4;
        }
        if memory {
            *m = *m & 0x38 | 0x87;
        }
    }
    if rex & 0xF != 0 {
        code.push(rex | 0x40);
    }
    code.extend(p.opcode);
    code.extend(modrm);
    if memory {
        code.extend([0, 2, 0, 0]);
    }
    code.extend(p.tail);
    make_fpu(&code)
}

/// Machine code that stores two MMX registers (numbers 0 to 7) to the first 16 bytes of the operand.
pub(crate) fn mmx_pair_thunk(first: u8, second: u8) -> Option<Thunk> {
    let movq = |r: u8, at: u8| [0x0F, 0x7F, 0x87 | (r & 7) << 3, at, 2, 0, 0];
    make_fpu(&[movq(first, 0), movq(second, 8)].concat())
}

/// Loads the context, runs `inner`, takes the context back.
fn make_fpu(inner: &[u8]) -> Option<Thunk> {
    // fxrstor [rdi]; mov rax, [rdi+280h]; push [rdi+288h]; popfq
    let mut code = vec![
        0x0F, 0xAE, 0x0F, 0x48, 0x8B, 0x87, 0x80, 2, 0, 0, 0xFF, 0xB7, 0x88, 2, 0, 0, 0x9D,
    ];
    code.extend(inner);
    // pushfq; pop [rdi+288h]; mov [rdi+280h], rax; fxsave [rdi]; fninit; ldmxcsr [rdi+290h]; ret
    code.extend([0x9C, 0x8F, 0x87, 0x88, 2, 0, 0, 0x48, 0x89, 0x87, 0x80, 2, 0, 0]);
    code.extend([
        0x0F, 0xAE, 0x07, 0xDB, 0xE3, 0x0F, 0xAE, 0x97, 0x90, 2, 0, 0, 0xC3,
    ]);
    make(code)
}

/// Runs an SSE thunk; MXCSR comes back with the sticky flags of this instruction only.
pub(crate) fn run_sse(t: Thunk, c: &mut SseContext) {
    c.mxcsr = (c.mxcsr & 0xFFC0) | 0x1F80;
    c.host_mxcsr = HOST_MXCSR;
    // SAFETY: a thunk is a function of this type (see `sse_thunk`) that touches only the context and
    // registers that a call may change, with every exception masked.
    unsafe {
        let f: extern "sysv64" fn(*mut SseContext) = std::mem::transmute(t.0 as usize);
        f(c);
    }
}

/// Runs an x87 or MMX thunk. The image has the guest's x87 control word, and the status word must have no
/// exception flag: one that becomes pending is found in the image afterwards.
pub(crate) fn run_fpu(t: Thunk, c: &mut FpuContext) {
    c.host_mxcsr = HOST_MXCSR;
    c.flags = c.flags & 0x8D5 | 2;
    let mxcsr = u32::from_le_bytes([c.image[24], c.image[25], c.image[26], c.image[27]]) & 0xFFC0 | 0x1F80;
    c.image[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    // SAFETY: a thunk is a function of this type (see `fpu_thunk`) that touches only the context and
    // registers that a call may change. An x87 exception is pending at most from the one instruction on to
    // FNINIT, and FXSAVE and FNINIT do not wait (SDM volume 1 section 8.3.12), so none is raised; SSE
    // exceptions are masked. It leaves the x87 stack empty.
    unsafe {
        let f: extern "sysv64" fn(*mut FpuContext) = std::mem::transmute(t.0 as usize);
        f(c);
    }
}

/// A packed integer operation that is one host instruction.
pub(crate) trait Packed {
    fn go(a: u128, b: u128) -> u128;
}

macro_rules! operations {
    ($($name:ident: $intrinsic:ident),* $(,)?) => {
        /// Packed integer operations, named after the compiler's intrinsics.
        pub(crate) mod packed {
            use std::arch::x86_64::__m128i;

            #[inline(always)]
            fn to_vector(v: u128) -> __m128i {
                // SAFETY: both types are 16 bytes without invalid values.
                unsafe { std::mem::transmute(v) }
            }
            $(
                pub(crate) struct $name;
                impl super::Packed for $name {
                    #[inline(always)]
                    fn go(a: u128, b: u128) -> u128 {
                        // SAFETY: SSE2 is part of x86-64; both types are 16 bytes without invalid values.
                        unsafe {
                            let r = std::arch::x86_64::$intrinsic(to_vector(a), to_vector(b));
                            std::mem::transmute::<__m128i, u128>(r)
                        }
                    }
                }
            )*
        }
    };
}
operations!(
    AndSi128: _mm_and_si128,
    AndnotSi128: _mm_andnot_si128,
    OrSi128: _mm_or_si128,
    XorSi128: _mm_xor_si128,
    CmpeqEpi8: _mm_cmpeq_epi8,
    CmpeqEpi16: _mm_cmpeq_epi16,
    CmpeqEpi32: _mm_cmpeq_epi32,
    CmpgtEpi8: _mm_cmpgt_epi8,
    CmpgtEpi16: _mm_cmpgt_epi16,
    CmpgtEpi32: _mm_cmpgt_epi32,
    AddEpi8: _mm_add_epi8,
    AddEpi16: _mm_add_epi16,
    AddEpi32: _mm_add_epi32,
    AddEpi64: _mm_add_epi64,
    SubEpi8: _mm_sub_epi8,
    SubEpi16: _mm_sub_epi16,
    SubEpi32: _mm_sub_epi32,
    SubEpi64: _mm_sub_epi64,
    MinEpu8: _mm_min_epu8,
    MaxEpu8: _mm_max_epu8,
    MinEpi16: _mm_min_epi16,
    MaxEpi16: _mm_max_epi16,
    UnpackloEpi8: _mm_unpacklo_epi8,
    UnpackloEpi16: _mm_unpacklo_epi16,
    UnpackloEpi32: _mm_unpacklo_epi32,
    UnpackloEpi64: _mm_unpacklo_epi64,
    UnpackhiEpi8: _mm_unpackhi_epi8,
    UnpackhiEpi16: _mm_unpackhi_epi16,
    UnpackhiEpi32: _mm_unpackhi_epi32,
    UnpackhiEpi64: _mm_unpackhi_epi64,
    MulEpu32: _mm_mul_epu32,
    AvgEpu8: _mm_avg_epu8,
    PackusEpi16: _mm_packus_epi16,
    PacksEpi16: _mm_packs_epi16,
    PacksEpi32: _mm_packs_epi32,
    MulloEpi16: _mm_mullo_epi16,
    MaddEpi16: _mm_madd_epi16,
    SadEpu8: _mm_sad_epu8,
);

/// The sign bits of the 16 bytes.
pub(crate) fn byte_mask(v: u128) -> u32 {
    // SAFETY: SSE2 is part of x86-64; both types are 16 bytes without invalid values.
    unsafe {
        std::arch::x86_64::_mm_movemask_epi8(std::mem::transmute::<u128, std::arch::x86_64::__m128i>(v))
            as u32
    }
}
