// SPDX-License-Identifier: MIT
//! Pairs of instructions that run as one uop.

use crate::uop::Uop;

/// The fused form of two uops, if there is one.
pub(crate) fn fuse(_first: &Uop, _second: &Uop) -> Option<Uop> {
    None
}
