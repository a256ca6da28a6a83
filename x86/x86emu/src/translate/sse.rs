// SPDX-License-Identifier: MIT
//! FPU and SSE instructions.

use super::convert::{End, Source};
use crate::uop::Uop;
use iced_x86::Mnemonic as M;

/// The uop of an FPU, MMX or SSE instruction.
pub(crate) fn convert(_s: &Source<'_>, _m: M) -> Option<(Uop, End)> {
    None
}
