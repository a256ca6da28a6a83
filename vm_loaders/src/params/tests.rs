// SPDX-License-Identifier: MIT
//! Bytes of each parameter, the map's splits, and the judgement of `dtc` where it is installed.

use super::*;
use launch_plan::{Arch, ExpectMemory, Isolation, Origin, PlanBuilder, PlatformFacts};
use openvmm_defs::Machine;
use proptest::prelude::*;
use std::io::Write;
use std::process::{Command, Stdio};

fn layout(machine: Machine) -> MemoryLayout {
    MemoryLayout {
        machine,
        ram: vec![GpaRange::new(0, 0x1000_0000), GpaRange::new(1 << 32, 0x1000_0000)],
        low_mmio: GpaRange::new(0xF800_0000, 0x800_0000),
        high_mmio: GpaRange::new(0x2_0000_0000, 0x2000_0000),
        tpm: None,
        root_complexes: Vec::new(),
        phys_bits: 40,
        vp_count: 3,
    }
}

enum Special {
    Error(u64, u64),
    Protectable(u64, u64),
}

fn plan(specials: &[Special]) -> LaunchPlan<'static> {
    let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Vsm, Arch::X64));
    for special in specials {
        let origin = Origin::Host("test");
        match *special {
            Special::Error(gpa, len) => builder.error_range(gpa, len, origin).unwrap(),
            Special::Protectable(gpa, len) => {
                let expect = ExpectMemory {
                    gpa,
                    len,
                    vtl2_protectable: true,
                };
                builder.expect_memory(expect, origin).unwrap();
            }
        }
    }
    builder.finish()
}

fn inputs<'a>(plan: &'a LaunchPlan<'a>, layout: &'a MemoryLayout) -> ParamInputs<'a> {
    ParamInputs {
        plan,
        layout,
        cmdline: Some("quiet"),
        com: [true, false, false, true],
        vmbus: true,
    }
}

fn entries(plan: &LaunchPlan<'_>, layout: &MemoryLayout) -> Vec<(u64, u64, u16)> {
    memory_map(plan, layout)
        .iter()
        .map(|entry| (entry.gpa, entry.len, entry.kind as u16))
        .collect()
}

#[test]
fn every_parameter_has_its_bytes() {
    let (plan, layout) = (plan(&[]), layout(Machine::Plain));
    let values = host_values(&inputs(&plan, &layout)).unwrap();
    let get = |kind| values.get(kind).unwrap();
    for kind in ParameterKind::ALL {
        assert!(values.get(kind).is_some(), "{kind}");
    }
    assert_eq!(get(ParameterKind::VpCount), [3, 0, 0, 0]);
    assert_eq!(get(ParameterKind::EnvironmentInfo), [1, 0, 0, 0]);
    assert_eq!(get(ParameterKind::CommandLine), b"quiet\0");
    assert_eq!(get(ParameterKind::Madt)[..4], *b"APIC");
    assert_eq!(get(ParameterKind::Srat)[..4], *b"SRAT");
    assert_eq!(get(ParameterKind::Slit)[..4], *b"SLIT");
    assert_eq!(get(ParameterKind::Pptt)[..4], *b"PPTT");
    let pages: Vec<u64> = get(ParameterKind::MmioRanges)
        .chunks_exact(8)
        .map(|field| u64::from_le_bytes(field.try_into().unwrap()))
        .collect();
    assert_eq!(pages, [0xF_8000, 0x8000, 0x20_0000, 0x2_0000]);
}

#[test]
fn memory_map_ends_with_a_zero_entry() {
    let (plan, layout) = (plan(&[]), layout(Machine::Plain));
    let values = host_values(&inputs(&plan, &layout)).unwrap();
    let mut golden = Vec::new();
    for field in [0u64, 0x1_0000, 0, 0x10_0000, 0x1_0000, 0, 0, 0, 0] {
        golden.extend(field.to_le_bytes());
    }
    assert_eq!(values.get(ParameterKind::MemoryMap).unwrap(), golden);
}

#[test]
fn absent_command_line_leaves_the_files() {
    let (plan, layout) = (plan(&[]), layout(Machine::Plain));
    let none = ParamInputs {
        cmdline: None,
        ..inputs(&plan, &layout)
    };
    assert!(
        host_values(&none)
            .unwrap()
            .get(ParameterKind::CommandLine)
            .is_none()
    );
    let bad = ParamInputs {
        cmdline: Some("ab\0"),
        ..inputs(&plan, &layout)
    };
    assert_eq!(host_values(&bad).unwrap_err(), ParamError::CommandLineNul(2));
}

#[test]
fn error_ranges_are_reserved() {
    let plan = plan(&[
        Special::Error(0x5000, 0x2000),
        Special::Error(0xF000_0000, 0x1000),
    ]);
    assert_eq!(
        entries(&plan, &layout(Machine::Plain)),
        [
            (0, 0x5000, 0),
            (0x5000, 0x2000, 1),
            (0x7000, 0x0FFF_9000, 0),
            (1 << 32, 0x1000_0000, 0)
        ]
    );
}

#[test]
fn protectable_ranges_split_ram_and_errors_win() {
    let plan = plan(&[
        Special::Protectable(0x0800_0000, 0x1000_0000),
        Special::Protectable(0x0900_0000, 0x100),
        Special::Error(0x0A00_0000, 0x1000),
    ]);
    assert_eq!(
        entries(&plan, &layout(Machine::Plain)),
        [
            (0, 0x0800_0000, 0),
            (0x0800_0000, 0x0200_0000, 3),
            (0x0A00_0000, 0x1000, 1),
            (0x0A00_1000, 0x05FF_F000, 3),
            (1 << 32, 0x1000_0000, 0)
        ]
    );
}

fn tree(machine: Machine) -> Vec<u8> {
    let plan = plan(&[
        Special::Error(0x5000, 0x2000),
        Special::Protectable(0x0800_0000, 0x1000),
    ]);
    let layout = layout(machine);
    let values = host_values(&inputs(&plan, &layout)).unwrap();
    values.get(ParameterKind::DeviceTree).unwrap().to_vec()
}

/// `dtc`'s source form of a tree and what it warned; `None` when it is not installed.
fn dtc(tree: &[u8]) -> Option<(String, String)> {
    let child = Command::new("dtc")
        .args(["-I", "dtb", "-O", "dts"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("skipped: dtc (Debian package device-tree-compiler) is not installed");
        return None;
    };
    child.stdin.take().unwrap().write_all(tree).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert!(output.status.success(), "{}", text(output.stderr));
    Some((text(output.stdout), text(output.stderr)))
}

#[test]
fn dtc_accepts_the_tree_of_each_machine_without_a_warning() {
    for machine in [Machine::Plain, Machine::Linux, Machine::HyperV, Machine::Ovmf] {
        let Some((source, warnings)) = dtc(&tree(machine)) else {
            return;
        };
        assert_eq!(warnings, "", "{machine:?}\n{source}");
        for part in [
            "cpu@2 {",
            "memory@7000 {",
            "memory@8000000 {",
            "error-range@5000 {",
            "serial@i3f8 {",
            "serial@i2e8 {",
            "bootargs = \"quiet\"",
            "stdout-path = \"/isa@legacy/serial@i3f8\"",
            "microsoft,igvm-type = <0x03>",
        ] {
            assert!(source.contains(part), "{machine:?} lacks {part}\n{source}");
        }
        assert!(!source.contains("serial@i2f8"), "{source}");
        assert_eq!(
            source.contains("microsoft,vtl = <0x00>"),
            machine == Machine::HyperV
        );
    }
}

#[test]
fn tree_is_a_flattened_device_tree_of_its_own_length() {
    let tree = tree(Machine::HyperV);
    assert_eq!(tree[..4], [0xD0, 0x0D, 0xFE, 0xED]);
    assert_eq!(
        u32::from_be_bytes(tree[4..8].try_into().unwrap()) as usize,
        tree.len()
    );
}

proptest! {
    #[test]
    fn map_covers_ram_exactly_once(
        specials in proptest::collection::vec((any::<bool>(), 0u64..0x11_0000, 1u64..0x8000), 0..12),
    ) {
        let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Vsm, Arch::X64));
        for (error, page, pages) in specials {
            let (gpa, len, origin) = (page << 12, pages << 12, Origin::Host("test"));
            // Overlapping error ranges are refused by the builder and stay out.
            let _ = if error {
                builder.error_range(gpa, len, origin)
            } else {
                builder.expect_memory(ExpectMemory { gpa, len, vtl2_protectable: true }, origin)
            };
        }
        let (plan, layout) = (builder.finish(), layout(Machine::Plain));
        let map = memory_map(&plan, &layout);
        prop_assert!(map.windows(2).all(|pair| pair[0].gpa + pair[0].len <= pair[1].gpa));
        prop_assert_eq!(map.iter().map(|entry| entry.len).sum::<u64>(), layout.ram_size());
        for entry in &map {
            prop_assert!(entry.len > 0 && layout.is_ram(&GpaRange::new(entry.gpa, entry.len)));
        }
    }
}
