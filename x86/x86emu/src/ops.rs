// SPDX-License-Identifier: MIT
//! Instruction handlers.
//!
//! Always true: a handler that stops has changed nothing (see [`crate::core`]). Handlers on the hot
//! path are generic over operation, size and operand form, so that each is a few host instructions;
//! the others look at the uop. Not here: choosing them ([`crate::translate`]).

pub(crate) mod alu;
pub(crate) mod bcd;
pub(crate) mod bit;
pub(crate) mod control;
pub(crate) mod exchange;
pub(crate) mod fuse;
pub(crate) mod mov;
pub(crate) mod muldiv;
pub(crate) mod shift;
pub(crate) mod sse;
pub(crate) mod stack;
pub(crate) mod string;
pub(crate) mod system;
pub(crate) mod table;

use crate::core::{Core, FLAT, Stop, ZERO};
use crate::mem::Word;
use crate::uop::{OpFn, Uop};

/// A uop without operands.
pub(crate) fn special(run: OpFn, at: usize, idx: u8) -> Uop {
    Uop {
        run,
        imm: 0,
        disp: 0,
        base: ZERO as u8,
        index: ZERO as u8,
        seg: FLAT as u8,
        dst: 0,
        src: 0,
        size: 0,
        aux: 0,
        at: at as u16,
        len: 0,
        idx,
        flags: 0,
    }
}

/// #UD with the bytes in the log.
pub(crate) fn undefined(bytes: &[u8], at: usize, idx: u16) -> Uop {
    let mut b = [0; 16];
    let n = bytes.len().min(15);
    b[..n].copy_from_slice(&bytes[..n]);
    let mut u = special(system::undefined, at, idx as u8);
    u.imm = u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
    u.disp = i32::from_le_bytes([b[8], b[9], b[10], b[11]]);
    u.len = n as u8;
    u
}

/// #GP: prefixes make the instruction longer than 15 bytes.
pub(crate) fn too_long(at: usize, idx: u16) -> Uop {
    special(system::too_long, at, idx as u8)
}

/// An integer operand size.
pub(crate) trait Int: Word {
    /// Bits.
    const BITS: u32;
    /// Zero-extended.
    fn wide(self) -> u64;
    /// Truncated.
    fn narrow(v: u64) -> Self;
    /// Sign-extends the low bits.
    fn sext(v: u64) -> u64;
    /// Register, zero-extended.
    fn get(c: &Core, r: u8) -> u64;
    /// Writes a register by the rules of its size.
    fn put(c: &mut Core, r: u8, v: u64);
}

macro_rules! int {
    ($t:ty, $s:ty, |$c:ident, $r:ident| $get:expr, |$g:ident, $v:ident, $q:ident| $put:expr) => {
        impl Int for $t {
            const BITS: u32 = <$t>::BITS;
            #[inline(always)]
            fn wide(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn narrow(v: u64) -> Self {
                v as $t
            }
            #[inline(always)]
            fn sext(v: u64) -> u64 {
                v as $s as i64 as u64
            }
            #[inline(always)]
            fn get($c: &Core, $r: u8) -> u64 {
                $get
            }
            #[inline(always)]
            fn put(c: &mut Core, $q: u8, $v: u64) {
                let $g = &mut c.gpr[usize::from($q & 15)];
                *$g = $put;
            }
        }
    };
}
int!(
    u8,
    i8,
    |c, r| c.gpr[usize::from(r & 15)] >> (r >> 5 << 3) & 0xFF,
    |g, v, r| {
        let s = r >> 5 << 3;
        *g & !(0xFF << s) | (v & 0xFF) << s
    }
);
int!(u16, i16, |c, r| c.gpr[usize::from(r & 15)] & 0xFFFF, |g, v, r| *g
    & !0xFFFF
    | v & 0xFFFF);
int!(
    u32,
    i32,
    |c, r| c.gpr[usize::from(r & 15)] & 0xFFFF_FFFF,
    |g, v, r| {
        let _ = &g;
        v & 0xFFFF_FFFF
    }
);
int!(u64, i64, |c, r| c.gpr[usize::from(r & 15)], |g, v, r| {
    let _ = &g;
    v
});

/// How a memory operand's address is made.
pub(crate) trait Addr {
    /// Linear address for an access of `len` bytes.
    fn at(c: &mut Core, u: &Uop, len: u64, write: bool) -> Result<u64, Stop>;
}

/// 64-bit mode with 64-bit addresses: no bounds.
pub(crate) struct Flat;
/// Everything else.
pub(crate) struct Seg;

impl Addr for Flat {
    #[inline(always)]
    fn at(c: &mut Core, u: &Uop, _len: u64, _write: bool) -> Result<u64, Stop> {
        Ok(c.flat(u))
    }
}
impl Addr for Seg {
    #[inline(always)]
    fn at(c: &mut Core, u: &Uop, len: u64, write: bool) -> Result<u64, Stop> {
        c.linear(u, len, write)
    }
}

/// The instance of a handler for a size and an address form.
macro_rules! pick {
    ($f:ident $(:: <$o:ty>)?, $size:expr, $flat:expr) => {
        match ($size, $flat) {
            (1, true) => $f::<$($o,)? u8, $crate::ops::Flat> as $crate::uop::OpFn,
            (2, true) => $f::<$($o,)? u16, $crate::ops::Flat>,
            (4, true) => $f::<$($o,)? u32, $crate::ops::Flat>,
            (_, true) => $f::<$($o,)? u64, $crate::ops::Flat>,
            (1, false) => $f::<$($o,)? u8, $crate::ops::Seg>,
            (2, false) => $f::<$($o,)? u16, $crate::ops::Seg>,
            (4, false) => $f::<$($o,)? u32, $crate::ops::Seg>,
            (_, false) => $f::<$($o,)? u64, $crate::ops::Seg>,
        }
    };
    ($f:ident $(:: <$o:ty>)?, $size:expr) => {
        match $size {
            1 => $f::<$($o,)? u8> as $crate::uop::OpFn,
            2 => $f::<$($o,)? u16>,
            4 => $f::<$($o,)? u32>,
            _ => $f::<$($o,)? u64>,
        }
    };
}
pub(crate) use pick;

/// The instance of a handler for a condition.
macro_rules! by_cond {
    ($f:ident, $cc:expr $(, $t:ty)*) => {{
        let handlers: [$crate::uop::OpFn; 16] = [
            $f::<0 $(, $t)*>, $f::<1 $(, $t)*>, $f::<2 $(, $t)*>, $f::<3 $(, $t)*>,
            $f::<4 $(, $t)*>, $f::<5 $(, $t)*>, $f::<6 $(, $t)*>, $f::<7 $(, $t)*>,
            $f::<8 $(, $t)*>, $f::<9 $(, $t)*>, $f::<10 $(, $t)*>, $f::<11 $(, $t)*>,
            $f::<12 $(, $t)*>, $f::<13 $(, $t)*>, $f::<14 $(, $t)*>, $f::<15 $(, $t)*>,
        ];
        handlers[usize::from($cc & 15)]
    }};
}
pub(crate) use by_cond;
