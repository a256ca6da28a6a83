// SPDX-License-Identifier: MIT
//! Finished bytes of every IGVM parameter, for `bind` to deposit (igvm-format section 2).
//!
//! Always true: terminators are part of the bytes; the memory map is sorted, complete and describes
//! RAM only as far as the guest may use it; whatever one parameter says about processors, memory and
//! devices, the others say too. ENVIRONMENT_INFO says `memory_is_shared`, as QEMU documents for guests
//! that are not confidential. Not here: whether a value fits its area (`bind`).

mod device_tree;
mod memory_map;

pub use device_tree::DeviceTreeError;
pub use memory_map::{IgvmMemoryType, MemoryMapEntry, memory_map};

use crate::acpi;
use launch_plan::{HostValues, LaunchPlan, ParameterKind};
use openvmm_defs::{GpaRange, MemoryLayout};
use x86defs::paging::PAGE_SIZE;

/// ENVIRONMENT_INFO bit 0: all memory is shared with the host.
const MEMORY_IS_SHARED: u32 = 1;

/// What parameters are made from.
#[derive(Debug, Clone, Copy)]
pub struct ParamInputs<'a> {
    /// The plan that asks: its error ranges are reserved, its VTL2-protectable ranges are named.
    pub plan: &'a LaunchPlan<'a>,
    /// RAM, MMIO gaps, VP count.
    pub layout: &'a MemoryLayout,
    /// Command line without terminator; `None` leaves what the file has in its place.
    pub cmdline: Option<&'a str>,
    /// COM1 to COM4 have a backend.
    pub com: [bool; 4],
    /// VMBus is there.
    pub vmbus: bool,
}

/// Why parameters cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ParamError {
    #[error("the command line has a NUL byte at offset {0}")]
    CommandLineNul(usize),
    #[error(transparent)]
    DeviceTree(#[from] DeviceTreeError),
}

/// All parameters.
pub fn host_values(inputs: &ParamInputs<'_>) -> Result<HostValues<'static>, ParamError> {
    use ParameterKind as Kind;
    let layout = inputs.layout;
    let mut values = HostValues::new(layout.vp_count);
    let map = memory_map(inputs.plan, layout);
    values.set(Kind::MemoryMap, memory_map::encode(&map));
    values.set(Kind::Madt, acpi::madt(layout));
    values.set(Kind::Srat, acpi::srat(layout));
    values.set(Kind::Slit, acpi::slit());
    values.set(Kind::Pptt, acpi::pptt(layout));
    values.set(Kind::MmioRanges, mmio_ranges(layout));
    values.set(Kind::EnvironmentInfo, MEMORY_IS_SHARED.to_le_bytes().to_vec());
    if let Some(cmdline) = inputs.cmdline {
        values.set(Kind::CommandLine, command_line(cmdline)?);
    }
    values.set(Kind::DeviceTree, device_tree::device_tree(inputs, &map)?);
    Ok(values)
}

fn command_line(text: &str) -> Result<Vec<u8>, ParamError> {
    if let Some(offset) = text.bytes().position(|byte| byte == 0) {
        return Err(ParamError::CommandLineNul(offset));
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    Ok(bytes)
}

/// Low and high gap, each {first page number, page count}.
fn mmio_ranges(layout: &MemoryLayout) -> Vec<u8> {
    [layout.low_mmio, layout.high_mmio]
        .iter()
        .flat_map(|GpaRange { gpa, len }| [gpa / PAGE_SIZE, len / PAGE_SIZE])
        .flat_map(u64::to_le_bytes)
        .collect()
}

#[cfg(test)]
mod tests;
