// SPDX-License-Identifier: MIT
//! The memory functions that compiled Rust calls by name.
//!
//! Always true: nothing but `rep` string instructions and byte loops, so that a host that emulates the
//! guest's ring 0 needs no more. They must not be written with slices: the compiler would turn those back
//! into calls of themselves. Not here: access to guest physical memory (`memory`).

use core::arch::asm;

/// C `memcpy`.
///
/// # Safety
/// As in C: `n` readable bytes at `from`, `n` writable ones at `to`, no overlap.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's promise; DF is clear in all our code.
    unsafe {
        asm!("rep movsb", inout("rcx") n => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

/// C `memmove`.
///
/// # Safety
/// As in C: `n` readable bytes at `from`, `n` writable ones at `to`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= n {
        // SAFETY: a forward copy never reads what it has written.
        return unsafe { memcpy(to, from, n) };
    }
    // SAFETY: the caller's promise; the copy runs backwards from the last byte, and DF is clear again
    // at the end.
    unsafe {
        asm!("std", "rep movsb", "cld",
            inout("rcx") n => _,
            inout("rdi") to.wrapping_add(n).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(n).wrapping_sub(1) => _,
            options(nostack));
    }
    to
}

/// C `memset`.
///
/// # Safety
/// As in C: `n` writable bytes at `to`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn memset(to: *mut u8, value: i32, n: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("rep stosb", inout("rcx") n => _, inout("rdi") to => _, in("al") value as u8,
            options(nostack, preserves_flags));
    }
    to
}

/// C `memcmp`.
///
/// # Safety
/// As in C: `n` readable bytes at both.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    let mut at = 0;
    while at < n {
        // SAFETY: `at` is below `n`, and the caller promises `n` bytes.
        let (x, y) = unsafe { (a.add(at).read(), b.add(at).read()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        at += 1;
    }
    0
}

/// C `bcmp`.
///
/// # Safety
/// As `memcmp`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(a, b, n) }
}

/// C `strlen`.
///
/// # Safety
/// As in C: NUL-terminated bytes at `text`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut at = 0;
    // SAFETY: every byte before the NUL is readable, the caller says so.
    while unsafe { text.add(at).read() } != 0 {
        at += 1;
    }
    at
}
