// SPDX-License-Identifier: MIT
//! `--igvm-vtl2-relocation-type`: the IGVM library's grammar, as configuration.

use openvmm_defs::Vtl2Base;
use vm_loaders::igvm::{RelocationTypeError, Vtl2Relocation};

/// Parses the value.
pub(crate) fn parse(text: &str) -> Result<Vtl2Base, RelocationTypeError> {
    Ok(match text.parse()? {
        Vtl2Relocation::File => Vtl2Base::File,
        Vtl2Relocation::MemoryLayout(size) => Vtl2Base::MemoryLayout(size),
        Vtl2Relocation::Absolute(base) => Vtl2Base::Absolute(base),
        Vtl2Relocation::Vtl2Allocate(size) => Vtl2Base::Vtl2Allocate(size),
    })
}
