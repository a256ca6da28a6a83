// SPDX-License-Identifier: MIT
//! The device tree parameter, compared with the other parameters.

use crate::area;
use crate::igvm_parameters::Parameters;
use guest_rt::fdt::{self, Property};
use guest_rt::protocol::Fnv1a;
use guest_rt::protocol::igvm_probe as contract;
use guest_rt::report::{check, equal, info};

/// What the tree says.
#[derive(Default)]
struct Seen {
    cpus: u32,
    /// Sum of memory nodes, in bytes.
    memory: u64,
    /// Memory nodes of ordinary RAM (`microsoft,igvm-type` 0).
    typed: u32,
    memory_nodes: u32,
    serial_ports: u32,
    /// Length of bootargs, and whether they are the command line.
    bootargs: Option<(usize, bool)>,
}

pub(crate) fn check_device_tree(base: u64, parameters: &Parameters) {
    let bytes = area(base, contract::DEVICE_TREE);
    let mut seen = Seen::default();
    if let Err(broken) = fdt::walk(bytes, |property| look(&mut seen, &property, parameters)) {
        check("device-tree", false, format_args!("{broken:?}"));
        return;
    }
    let size = fdt::declared_size(bytes).unwrap_or(0);
    let hash = Fnv1a::of(bytes.get(..size).unwrap_or(&[]));
    check("device-tree", true, format_args!("{size} bytes hash {hash:016x}"));
    equal("device-tree-cpus", seen.cpus.into(), parameters.vp_count.into());
    equal("device-tree-memory", seen.memory, parameters.ram);
    let typed = seen.memory_nodes != 0 && seen.typed == seen.memory_nodes;
    check(
        "device-tree-igvm-types",
        typed,
        format_args!("{} of {}", seen.typed, seen.memory_nodes),
    );
    match seen.bootargs {
        Some((len, same)) => check("device-tree-bootargs", same, format_args!("{len} bytes")),
        None => check("device-tree-bootargs", false, format_args!("none")),
    }
    info("device-tree-serial", format_args!("{}", seen.serial_ports));
}

fn look(seen: &mut Seen, property: &Property<'_>, parameters: &Parameters) {
    match (property.path, property.name) {
        (["cpus", cpu], "device_type") if cpu.starts_with("cpu@") => seen.cpus += 1,
        ([node], "reg") if node.starts_with("memory@") => {
            seen.memory_nodes += 1;
            seen.memory += property.pair(2).unwrap_or(0);
        }
        ([node], "microsoft,igvm-type") if node.starts_with("memory@") => {
            seen.typed += u32::from(property.cell(0) == Some(0));
        }
        ([.., node], "compatible") if node.starts_with("serial@") => seen.serial_ports += 1,
        (["chosen"], "bootargs") => {
            let text = property.text();
            let same = text == Some(parameters.command_line);
            seen.bootargs = Some((text.map_or(0, str::len), same));
        }
        _ => {}
    }
}
