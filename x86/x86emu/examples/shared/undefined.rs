// SPDX-License-Identifier: MIT
//! What the manual leaves undefined, and comparisons therefore mask: a table that cites it.
//!
//! Always true: only what a row of [`TABLE`] names is masked. Chapter and verse are the section of SDM
//! volume 2 (325383) of the instruction, "Flags Affected" or "Operation". Not here: what the host's
//! results are.

use crate::host::Registers;
use iced_x86::{Instruction, Mnemonic as M, OpKind};

const CF: u64 = 1;
const PF: u64 = 4;
const AF: u64 = 0x10;
const ZF: u64 = 0x40;
const SF: u64 = 0x80;
const OF: u64 = 0x800;
/// All status flags.
pub(crate) const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// When a row applies, by the masked count and the operand's bits.
type When = fn(count: u64, bits: u64) -> bool;

/// One rule.
struct Row {
    mnemonics: &'static [M],
    when: When,
    flags: u64,
    /// The destination is undefined too.
    result: bool,
    /// The manual's words.
    #[allow(dead_code, reason = "the citation is for readers")]
    says: &'static str,
}

const fn row(mnemonics: &'static [M], when: When, flags: u64, says: &'static str) -> Row {
    Row {
        mnemonics,
        when,
        flags,
        result: false,
        says,
    }
}

const fn with_result(row: Row) -> Row {
    Row { result: true, ..row }
}

const ALWAYS: When = |_, _| true;

const TABLE: &[Row] = &[
    row(
        &[M::And, M::Or, M::Xor, M::Test],
        ALWAYS,
        AF,
        "AND, OR, XOR, TEST: the state of the AF flag is undefined",
    ),
    row(
        &[M::Mul, M::Imul],
        ALWAYS,
        SF | ZF | AF | PF,
        "MUL, IMUL: SF, ZF, AF, and PF are undefined",
    ),
    row(
        &[M::Div, M::Idiv],
        ALWAYS,
        STATUS,
        "DIV, IDIV: CF, OF, SF, ZF, AF, and PF are undefined",
    ),
    row(
        &[M::Aaa, M::Aas],
        ALWAYS,
        OF | SF | ZF | PF,
        "AAA, AAS: OF, SF, ZF, and PF are undefined",
    ),
    row(
        &[M::Aad, M::Aam],
        ALWAYS,
        OF | AF | CF,
        "AAD, AAM: OF, AF, and CF are undefined",
    ),
    row(
        &[M::Daa, M::Das],
        ALWAYS,
        OF,
        "DAA, DAS: the OF flag is undefined",
    ),
    row(
        &[M::Bsf, M::Bsr],
        ALWAYS,
        CF | OF | SF | AF | PF,
        "BSF, BSR: CF, OF, SF, AF, and PF are undefined",
    ),
    row(
        &[M::Bt, M::Bts, M::Btr, M::Btc],
        ALWAYS,
        OF | SF | AF | PF,
        "BT, BTS, BTR, BTC: OF, SF, AF, and PF are undefined",
    ),
    row(
        &[M::Rol, M::Ror, M::Rcl, M::Rcr],
        |count, _| count > 1,
        OF,
        "RCL/RCR/ROL/ROR: OF is defined only for the 1-bit rotates",
    ),
    row(
        &[M::Shl, M::Sal, M::Shr, M::Sar, M::Shld, M::Shrd],
        |count, _| count > 1,
        OF,
        "SAL/SAR/SHL/SHR, SHLD, SHRD: OF is affected only for 1-bit shifts, otherwise undefined",
    ),
    row(
        &[M::Shl, M::Sal, M::Shr, M::Sar, M::Shld, M::Shrd],
        |count, _| count > 0,
        AF,
        "SAL/SAR/SHL/SHR, SHLD, SHRD: for a non-zero count, AF is undefined",
    ),
    row(
        &[M::Shl, M::Sal, M::Shr],
        |count, bits| count >= bits,
        CF,
        "SHL, SHR: CF is undefined where the count is at least the size of the destination",
    ),
    with_result(row(
        &[M::Shld, M::Shrd],
        |count, bits| count > bits,
        STATUS,
        "SHLD, SHRD: if the count is greater than the operand size, the result and the flags are undefined",
    )),
    with_result(row(
        &[M::Bswap],
        |_, bits| bits == 16,
        0,
        "BSWAP: the result of a 16-bit register is undefined",
    )),
];

/// Bits of the first operand.
fn bits(i: &Instruction) -> u64 {
    let size = match i.op_kind(0) {
        OpKind::Register => i.op_register(0).size(),
        _ => i.memory_size().size(),
    };
    size as u64 * 8
}

/// The last operand as a masked shift count.
fn count(i: &Instruction, before: &Registers) -> u64 {
    let Some(last) = i.op_count().checked_sub(1) else {
        return 0;
    };
    let raw = match i.op_kind(last) {
        OpKind::Register => before.gpr[1],
        OpKind::Memory => 0,
        // String operands, branch targets: no count.
        _ => i.try_immediate(last).unwrap_or(0),
    };
    raw & if bits(i) == 64 { 63 } else { 31 }
}

/// The status flags that `i` leaves undefined, and whether it leaves its destination undefined.
pub(crate) fn undefined(i: &Instruction, before: &Registers) -> (u64, bool) {
    let rows = TABLE.iter().filter(|row| row.mnemonics.contains(&i.mnemonic()));
    let (count, bits) = (count(i, before), bits(i));
    rows.filter(|row| (row.when)(count, bits))
        .fold((0, false), |(flags, result), row| {
            (flags | row.flags, result || row.result)
        })
}
