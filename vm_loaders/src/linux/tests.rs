// SPDX-License-Identifier: MIT
//! Plans of small kernels in all three forms, and every refusal.

mod kernels;

use super::*;
use kernels::{Note, bzimage, elf, set_u16, set_u32, set_u64};
use launch_plan::{HostValues, StepKind, check_state};
use openvmm_defs::{Machine, RootComplexLayout};
use proptest::prelude::*;

fn layout(ram: u64) -> MemoryLayout {
    let low = ram.min(0xC000_0000);
    let mut ranges = vec![GpaRange::new(0, low)];
    if ram > low {
        ranges.push(GpaRange::new(1 << 32, ram - low));
    }
    MemoryLayout {
        machine: Machine::Linux,
        ram: ranges,
        low_mmio: GpaRange::new(0xF800_0000, 0x800_0000),
        high_mmio: GpaRange::default(),
        tpm: None,
        root_complexes: Vec::new(),
        phys_bits: 40,
        vp_count: 2,
    }
}

fn inputs<'a, 'l>(kernel: &'a [u8], layout: &'l MemoryLayout) -> LinuxInputs<'a, 'l> {
    LinuxInputs {
        kernel,
        initrd: None,
        cmdline: "console=ttyS0",
        layout,
        replaceable_cmdline: false,
    }
}

fn refusal(kernel: &[u8]) -> String {
    plan(&inputs(kernel, &layout(256 << 20))).unwrap_err().to_string()
}

fn imports<'p>(plan: &'p LaunchPlan<'_>) -> Vec<&'p Import<'p>> {
    let of = |step: &'p launch_plan::Step<'_>| match &step.kind {
        StepKind::Import(import) => Some(import),
        _ => None,
    };
    plan.steps().iter().filter_map(of).collect()
}

fn bytes_at<'p>(plan: &'p LaunchPlan<'_>, gpa: u64) -> &'p [u8] {
    let import = imports(plan)
        .into_iter()
        .find(|import| import.gpa == gpa)
        .unwrap();
    match &import.contents {
        Contents::Bytes(bytes) => bytes,
        Contents::Parameters(area) => &area.initial,
        Contents::Zero => &[],
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn boot_registers(plan: &LaunchPlan<'_>) -> x86defs::X86State {
    let state = plan.vp_contexts().next().unwrap().0.state.to_x86().unwrap();
    assert_eq!(check_state(&state), Ok(()));
    state
}

const LOAD: u64 = 0x100_0000;

#[test]
fn bzimage_starts_at_its_64_bit_entry() {
    let kernel = bzimage();
    let layout = layout(256 << 20);
    let plan = plan(&inputs(&kernel, &layout)).unwrap();
    assert_eq!(plan.facts.isolation, Isolation::Native);
    let state = boot_registers(&plan);
    assert_eq!(state.rip, LOAD + 0x200);
    assert_eq!(state.gpr[gpr::RSI], 0x7000);
    assert!(state.is_64bit());
    assert_eq!(
        (state.cr0, state.cr3, state.cr4, state.efer),
        (0x8000_0011, 0x9000, 0x20, 0x500)
    );
    assert_eq!((state.cs.selector, state.ds.selector), (0x10, 0x18));
    assert_eq!(state.rflags, 2);
    let gdt = bytes_at(&plan, 0x6000);
    assert_eq!(
        (u64_at(gdt, 16), u64_at(gdt, 24)),
        (0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF)
    );
    assert_eq!(u64_at(bytes_at(&plan, 0x9000), 0), 0xA023);
    let Contents::Bytes(Cow::Borrowed(loaded)) = &imports(&plan)
        .into_iter()
        .find(|import| import.gpa == LOAD)
        .unwrap()
        .contents
    else {
        panic!("the kernel must be borrowed");
    };
    assert_eq!(loaded.as_ptr(), kernel[5 * 512..].as_ptr());
}

#[test]
fn zero_page_carries_header_map_cmdline_and_tables() {
    let kernel = bzimage();
    let layout = layout(5 << 30);
    let plan = plan(&inputs(&kernel, &layout)).unwrap();
    let page = bytes_at(&plan, 0x7000);
    assert_eq!(page.len(), 4096);
    assert_eq!(
        page[0x1F1..0x210],
        kernel[0x1F1..0x210]
            .iter()
            .enumerate()
            .map(|(i, b)| {
                // vid_mode is the loader's.
                if matches!(i + 0x1F1, 0x1FA | 0x1FB) {
                    0xFF
                } else {
                    *b
                }
            })
            .collect::<Vec<_>>()
    );
    assert_eq!(page[0x210], 0xFF);
    assert_eq!(page[0x1EF], 0);
    assert_eq!(u32_at(page, 0x228), 0x2_0000);
    assert_eq!(u64_at(page, 0x070), 0xE_0000);
    assert_eq!(&bytes_at(&plan, 0xE_0000)[..8], b"RSD PTR ");
    assert_eq!(bytes_at(&plan, 0x2_0000), b"console=ttyS0");
    assert_eq!((u32_at(page, 0x218), u32_at(page, 0x21C)), (0, 0));
    let map: Vec<_> = (0..usize::from(page[0x1E8]))
        .map(|entry| {
            let at = 0x2D0 + entry * 20;
            (u64_at(page, at), u64_at(page, at + 8), u32_at(page, at + 16))
        })
        .collect();
    assert_eq!(
        map,
        [
            (0, 0xA_0000, 1),
            (0xA_0000, 0x6_0000, 2),
            (0x10_0000, 0xBFF0_0000, 1),
            (1 << 32, 2 << 30, 1)
        ]
    );
}

#[test]
fn ecam_is_reserved_in_the_map() {
    let mut layout = layout(1 << 30);
    layout.root_complexes.push(RootComplexLayout {
        segment: 0,
        start_bus: 0,
        end_bus: 255,
        uid: 0,
        ecam: GpaRange::new(0xD000_0000, 0x1000_0000),
        low_mmio: GpaRange::new(0xE000_0000, 0x1000_0000),
        high_mmio: GpaRange::default(),
    });
    let map = memory::e820(&layout).unwrap();
    let last = map.last().unwrap();
    assert_eq!((last.gpa, last.len, last.kind), (0xD000_0000, 0x1000_0000, 2));
}

#[test]
fn initrd_lies_as_high_as_the_kernel_allows() {
    let kernel = bzimage();
    let initrd = vec![7; 5000];
    let layout = layout(256 << 20);
    let with_initrd = LinuxInputs {
        initrd: Some(&initrd),
        ..inputs(&kernel, &layout)
    };
    let bound = plan(&with_initrd).unwrap();
    let gpa = (256 << 20) - 0x2000;
    assert_eq!(bytes_at(&bound, gpa), initrd);
    let page = bytes_at(&bound, 0x7000);
    assert_eq!((u32_at(page, 0x218), u32_at(page, 0x21C)), (gpa as u32, 5000));

    let mut low = bzimage();
    set_u32(&mut low, 0x22C, 0x3FF_FFFF);
    let with_initrd = LinuxInputs {
        kernel: &low,
        ..with_initrd
    };
    assert_eq!(bytes_at(&plan(&with_initrd).unwrap(), 0x3FF_E000), initrd);
}

#[test]
fn initrd_that_does_not_fit_is_refused() {
    let kernel = bzimage();
    let initrd = vec![7; 8 << 20];
    let layout = layout(24 << 20);
    let with_initrd = LinuxInputs {
        initrd: Some(&initrd),
        ..inputs(&kernel, &layout)
    };
    assert_eq!(
        plan(&with_initrd).unwrap_err().to_string(),
        "the initrd of 0x800000 bytes does not fit between the kernel's end 0x1200000 and 0x1800000; -m must \
         be larger or the initrd smaller"
    );
    let empty = LinuxInputs {
        initrd: Some(&[]),
        ..with_initrd
    };
    assert_eq!(plan(&empty).unwrap_err(), LinuxError::EmptyInitrd);
}

#[test]
fn all_ram_of_the_map_is_expected_in_pieces_below_4_gib() {
    let kernel = bzimage();
    let layout = layout(8 << 30);
    let plan = plan(&inputs(&kernel, &layout)).unwrap();
    let pieces: Vec<_> = plan
        .steps()
        .iter()
        .filter_map(|step| match step.kind {
            StepKind::ExpectMemory(expect) => Some(expect.len),
            _ => None,
        })
        .collect();
    assert_eq!(pieces.iter().sum::<u64>(), 8 << 30);
    assert!(pieces.iter().all(|len| *len <= 2 << 30));
}

#[test]
fn kernel_beyond_ram_is_refused() {
    let kernel = bzimage();
    let small = layout(17 << 20);
    assert_eq!(
        plan(&inputs(&kernel, &small)).unwrap_err().to_string(),
        "the kernel needs 0x1000000..0x1200000 but RAM below 4 GiB ends at 0x1100000; -m must be larger"
    );
    let tiny = layout(0x8_0000);
    assert_eq!(
        plan(&inputs(&kernel, &tiny)).unwrap_err().to_string(),
        "the first RAM range 0x0..0x80000 must start at 0 and reach 1 MiB"
    );
}

#[test]
fn command_line_limits_are_the_kernels() {
    let mut kernel = bzimage();
    set_u32(&mut kernel, 0x238, 10);
    assert_eq!(
        refusal(&kernel),
        "the command line is 13 bytes long; this kernel takes at most 10"
    );
    set_u32(&mut kernel, 0x238, 0);
    let layout = layout(256 << 20);
    let long = "x".repeat(256);
    let long = LinuxInputs {
        cmdline: &long,
        ..inputs(&kernel, &layout)
    };
    assert_eq!(
        plan(&long).unwrap_err(),
        LinuxError::CommandLineTooLong {
            have: 256,
            limit: 255
        }
    );
    let nul = LinuxInputs {
        cmdline: "a\0b",
        ..inputs(&kernel, &layout)
    };
    assert_eq!(plan(&nul).unwrap_err(), LinuxError::CommandLineNul(1));
}

#[test]
fn command_line_of_a_whole_page_keeps_its_terminator() {
    let mut kernel = bzimage();
    set_u32(&mut kernel, 0x238, 0xFFFF);
    let layout = layout(256 << 20);
    let page = "x".repeat(4096);
    let plan = plan(&LinuxInputs {
        cmdline: &page,
        ..inputs(&kernel, &layout)
    })
    .unwrap();
    let import = imports(&plan)
        .into_iter()
        .find(|import| import.gpa == 0x2_0000)
        .unwrap();
    assert_eq!(import.len, 0x2000);
}

#[test]
fn replaceable_command_line_is_the_hosts_when_it_has_one() {
    let kernel = bzimage();
    let layout = layout(256 << 20);
    let plan = plan(&LinuxInputs {
        replaceable_cmdline: true,
        ..inputs(&kernel, &layout)
    })
    .unwrap();
    let mut host = HostValues::new(1);
    let text = |host: &HostValues<'_>| {
        let bound = plan.bind(host).unwrap();
        let import = bound.imports().find(|import| import.gpa == 0x2_0000).unwrap();
        let data = import.data.unwrap();
        let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
        String::from_utf8(data[..end].to_vec()).unwrap()
    };
    assert_eq!(text(&host), "console=ttyS0");
    host.set(ParameterKind::CommandLine, b"quiet\0".to_vec());
    assert_eq!(text(&host), "quiet");
}

#[test]
fn files_that_are_no_kernels_are_refused() {
    assert_eq!(
        refusal(b"MZ\x90\0more"),
        "not a kernel: neither a bzImage (signature HdrS at offset 0x202) nor an ELF file; it starts with \
         [4d, 5a, 90, 00]"
    );
    assert!(refusal(b"").ends_with("it starts with []"));
}

#[test]
fn bzimages_without_64_bit_entry_are_refused() {
    let changed = |at: usize, value: u16| {
        let mut kernel = bzimage();
        set_u16(&mut kernel, at, value);
        refusal(&kernel)
    };
    assert_eq!(
        changed(0x206, 0x20B),
        "the bzImage has boot protocol 2.11; 2.12 or later is needed (Linux 3.8)"
    );
    assert!(changed(0x236, 2).starts_with("the bzImage has no 64-bit entry point (xloadflags 0x2"));
    assert!(changed(0x211, 0).starts_with("the bzImage loads low"));
    let mut low = bzimage();
    set_u64(&mut low, 0x258, 0x1000);
    assert!(refusal(&low).starts_with("the bzImage loads low"));
}

#[test]
fn cut_off_bzimages_are_refused() {
    let kernel = bzimage();
    assert_eq!(
        refusal(&kernel[..kernel.len() - 1]),
        "the kernel file of 0x19ff bytes is cut off: its protected-mode part needs 0x1a00 bytes"
    );
    assert_eq!(
        refusal(&kernel[..0x262]),
        "the kernel file of 0x262 bytes is cut off: its protected-mode part needs 0x1a00 bytes"
    );
    assert_eq!(
        refusal(&kernel[..0x20C]),
        "the kernel file of 0x20c bytes is cut off: the setup header needs 0x212 bytes"
    );
}

#[test]
fn elf_without_note_starts_in_64_bit_mode_with_a_made_up_header() {
    let kernel = elf(Note::None, LOAD + 0x40);
    let layout = layout(256 << 20);
    let plan = plan(&inputs(&kernel, &layout)).unwrap();
    let state = boot_registers(&plan);
    assert!(state.is_64bit());
    assert_eq!(state.rip, LOAD + 0x40);
    let page = bytes_at(&plan, 0x7000);
    assert_eq!(&page[0x202..0x206], b"HdrS");
    assert_eq!(u64_at(page, 0x070), 0xE_0000);
    assert_eq!(u32_at(page, 0x228), 0x2_0000);
}

#[test]
fn virtual_entry_points_are_translated() {
    let kernel = elf(Note::None, kernels::VIRTUAL_BASE + 0x40);
    let layout = layout(256 << 20);
    let plan = plan(&inputs(&kernel, &layout)).unwrap();
    assert_eq!(boot_registers(&plan).rip, LOAD + 0x40);
}

#[test]
fn segments_that_share_a_page_are_joined() {
    let kernel = elf(Note::None, LOAD + 0x40);
    let layout = layout(256 << 20);
    let plan = plan(&inputs(&kernel, &layout)).unwrap();
    // Segment 0: 0x1800 bytes of 1 from the load address; segment 1: 0x100 bytes of 2 at +0x1900.
    assert_eq!(bytes_at(&plan, LOAD), [1; 0x1000]);
    let shared = bytes_at(&plan, LOAD + 0x1000);
    assert_eq!(shared[..0x800], [1; 0x800]);
    assert_eq!(shared[0x800..0x900], [0; 0x100]);
    assert_eq!(shared[0x900..0xA00], [2; 0x100]);
    assert_eq!(shared[0xA00..], [0; 0x600]);
}

#[test]
fn pvh_note_starts_in_protected_mode_with_start_info() {
    for note in [Note::Align4, Note::Align8] {
        let kernel = elf(note, 0);
        let initrd = vec![9; 100];
        let layout = layout(256 << 20);
        let plan = plan(&LinuxInputs {
            initrd: Some(&initrd),
            ..inputs(&kernel, &layout)
        })
        .unwrap();
        let state = boot_registers(&plan);
        assert_eq!((state.rip, state.gpr[gpr::RBX]), (LOAD + 0x80, 0x7000));
        assert_eq!((state.cr0, state.cr4, state.efer), (0x11, 0, 0));
        assert_eq!((state.cs.attributes.0, state.ss.attributes.0), (0xC09B, 0xC093));
        let page = bytes_at(&plan, 0x7000);
        assert_eq!((u32_at(page, 0), u32_at(page, 4)), (0x336E_C578, 1));
        assert_eq!((u32_at(page, 12), u64_at(page, 16)), (1, 0x7040));
        assert_eq!(
            (u64_at(page, 0x40), u64_at(page, 0x48)),
            ((256 << 20) - 0x1000, 100)
        );
        assert_eq!((u64_at(page, 24), u64_at(page, 32)), (0x2_0000, 0xE_0000));
        assert_eq!((u64_at(page, 40), u32_at(page, 48)), (0x7080, 3));
        assert_eq!(u64_at(page, 0x80 + 48), 0x10_0000);
    }
}

#[test]
fn a_sev_snp_guest_has_all_its_memory_in_the_launch_and_the_c_bit_in_its_tables() {
    use x86defs::vmsa::offset;
    let (kernel, layout) = (bzimage(), layout(64 << 20));
    let direct = SnpDirect {
        c_bit: 51,
        policy: 0xB_0000,
    };
    let plan = plan_snp(&inputs(&kernel, &layout), &direct).unwrap();
    assert_eq!(
        (plan.facts.isolation, plan.facts.policy),
        (Isolation::Snp, Some(0xB_0000))
    );
    let mut pages: Vec<u64> = plan.pages().map(|(page, _)| page.gpa / PAGE_SIZE).collect();
    pages.sort_unstable();
    assert!(pages.iter().copied().eq(0..16384), "{} pages", pages.len());
    let kinds = |kind| imports(&plan).iter().filter(|import| import.kind == kind).count();
    assert_eq!(
        (
            kinds(PageKind::Secrets),
            kinds(PageKind::Cpuid),
            kinds(PageKind::Unmeasured)
        ),
        (1, 1, 0)
    );
    assert_eq!(u64_at(bytes_at(&plan, PAGE_TABLES_GPA), 0) >> 51, 1);
    assert_eq!(u64_at(bytes_at(&plan, ZERO_PAGE_GPA), 0x250), 0xD_2000);
    assert_eq!(bytes_at(&plan, COMMAND_LINE_GPA), b"console=ttyS0");
    let areas: Vec<&[u8]> = plan
        .vp_contexts()
        .map(|(context, _)| match &context.state {
            VpState::Vmsa(page) => &page[..],
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(areas.len(), 2);
    assert_eq!(u64_at(areas[0], offset::CR3), PAGE_TABLES_GPA | 1 << 51);
    assert_eq!(u64_at(areas[0], offset::RSI), ZERO_PAGE_GPA);
    assert_eq!(u64_at(areas[0], offset::EFER), efer::LME | efer::LMA | efer::SVME);
    assert_eq!(u64_at(areas[1], offset::RIP), 0xFFF0);
}

#[test]
fn bad_elf_files_are_refused() {
    let changed = |change: fn(&mut Vec<u8>)| {
        let mut kernel = elf(Note::Align4, 0);
        change(&mut kernel);
        refusal(&kernel)
    };
    assert_eq!(changed(|k| k[4] = 1), "ELF kernel: it is not for 64-bit x86");
    assert_eq!(
        changed(|k| set_u16(k, 18, 183)),
        "ELF kernel: it is not for 64-bit x86"
    );
    assert_eq!(
        changed(|k| set_u16(k, 54, 32)),
        "ELF kernel: its program headers are not 56 bytes long"
    );
    assert_eq!(
        changed(|k| set_u16(k, 56, 129)),
        "ELF kernel: it has more than 128 program headers"
    );
    assert_eq!(
        changed(|k| set_u16(k, 56, 0)),
        "ELF kernel: it has no loadable segment"
    );
    assert!(changed(|k| set_u64(k, 32, u64::MAX)).contains("is cut off: the program headers"));
    assert!(changed(|k| set_u64(k, 64 + 8, 1 << 40)).contains("is cut off: a segment"));
    assert_eq!(
        changed(|k| set_u64(k, 64 + 40, 0x10)),
        "ELF kernel: a segment's file size exceeds its memory size"
    );
    assert_eq!(
        changed(|k| set_u64(k, 64 + 40, u64::MAX)),
        "ELF kernel: a segment passes the end of the address space"
    );
    assert_eq!(
        changed(|k| set_u64(k, 64 + 24, 0xF_F000)),
        "ELF kernel: segment 0 at 0xff000..0x100800 must lie at or above 0x100000"
    );
    assert_eq!(
        changed(|k| set_u64(k, 64 + 56 + 24, LOAD + 0x17FF)),
        "ELF kernel: segments 0 and 1 overlap"
    );
    assert_eq!(
        refusal(&elf(Note::None, 0x20)),
        "ELF kernel: the entry point 0x20 lies in no loaded segment"
    );
    assert_eq!(
        changed(|k| set_u32(k, kernels::NOTE_ENTRY, 0x10)),
        "ELF kernel: the entry point 0x10 lies in no loaded segment"
    );
    assert_eq!(
        changed(|k| set_u32(k, kernels::NOTE_ENTRY - 12, 0x1000)),
        "ELF kernel: a note passes the end of its segment"
    );
}

proptest! {
    #[test]
    fn mutated_kernels_never_panic(form in 0..3, at in 0usize..0x280, value: u64, width in 1usize..9) {
        let mut kernel = match form {
            0 => bzimage(),
            1 => elf(Note::None, LOAD),
            _ => elf(Note::Align8, 0),
        };
        let end = (at + width).min(kernel.len());
        kernel[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
        let layout = layout(256 << 20);
        if let Ok(plan) = plan(&inputs(&kernel, &layout)) {
            prop_assert!(plan.vp_contexts().count() == 1);
        }
    }
}
