// SPDX-License-Identifier: MIT
//! Legacy modes: rights and reserved bits of 2-level and PAE page tables, faults of protected-mode segments
//! and gates, and what real mode refuses. Translations and mode switches are in `modes`.

#[path = "shared/rig.rs"]
mod rig;

use rig::{CODE, HANDLERS, Rig};
use x86defs::{X86State, cr0};
use x86emu::Exit;

/// The page that the tests access, 4 MiB up; its page table; where it is.
const PAGE: u64 = 0x40_1000;
const TABLE: u64 = 0x1_4000;
const FRAME: u64 = 0x9000;
const WP: u64 = cr0::WP;

payload!(read, ".code32", "mov eax, [ecx]", "hlt");
payload!(write, ".code32", "mov [ecx], eax", "hlt");
payload!(jump, ".code32", "jmp ecx");

/// Moves the machine to ring 3; HLT is #GP there.
fn to_user(r: &mut Rig) {
    r.set(|s| {
        s.cs = rig::segment(0x1B, 0xC0FB);
        s.ss = rig::segment(0x23, 0xC0F3);
        (s.ds, s.es) = (s.ss, s.ss);
        s.gpr[4] = 0x6000;
    });
}

/// Error code of the page fault, if there was one; ring 3 ends with the #GP of its HLT.
fn page_fault(r: &mut Rig) -> Option<u32> {
    r.run_to_hlt();
    let first = r.events().first().copied()?;
    (first.vector == 14).then(|| first.error.expect("page faults have one"))
}

/// Paging on, with a bit of CR4, and ECX at [`PAGE`].
fn paged(s: &mut X86State, bit: u64) {
    s.gpr[1] = PAGE;
    s.cr3 = 0x1_0000;
    s.cr4 |= bit;
    s.cr0 |= cr0::PG | WP;
}

/// 2-level paging: 4 MiB one to one for everybody, and [`PAGE`] by a directory and a table entry.
fn two_level(code: &[u8], directory: u32, entry: u32) -> Rig {
    let mut r = Rig::protected(code);
    r.put32(0x1_0000, 0x87);
    r.put32(0x1_0004, directory);
    r.put32(TABLE + 4, entry);
    r.set(|s| paged(s, 0x10));
    r
}

/// PAE paging of the same; the directory pointer of the first GiB is `pointer`.
fn pae(code: &[u8], pointer: u64, directory: u64, entry: u64) -> Rig {
    let mut r = Rig::protected(code);
    r.put64(0x1_0000, pointer);
    r.put64(0x1_1000, 0x87);
    r.put64(0x1_1008, 0x20_0087);
    r.put64(0x1_1010, directory);
    r.put64(TABLE + 8, entry);
    r.set(|s| paged(s, 0x20));
    r
}

#[test]
fn rights_of_both_levels_are_anded() {
    let table = TABLE as u32;
    let frame = FRAME as u32;
    // Directory and entry flags; user; write; WP; error code.
    for (directory, entry, user, store, wp, error) in [
        (0, 7, false, false, true, Some(0)),
        (7, 0, false, true, true, Some(2)),
        (7, 0, true, false, true, Some(4)),
        (7, 0, true, true, true, Some(6)),
        (3, 7, true, false, true, Some(5)),
        (7, 3, true, true, true, Some(7)),
        (5, 7, true, true, true, Some(7)),
        (7, 5, true, true, false, Some(7)),
        (7, 5, false, true, true, Some(3)),
        (5, 7, false, true, true, Some(3)),
        (5, 5, false, true, false, None),
        (3, 1, false, false, true, None),
        (7, 7, true, true, true, None),
    ] {
        let code = if store { write() } else { read() };
        let mut legacy = two_level(&code, table | directory, frame | entry);
        let wide = (u64::from(table | directory), u64::from(frame | entry));
        let mut three = pae(&code, 0x1_1001, wide.0, wide.1);
        for (name, r) in [("2-level", &mut legacy), ("pae", &mut three)] {
            if user {
                to_user(r);
            }
            r.set(|s| s.cr0 = s.cr0 & !WP | if wp { WP } else { 0 });
            let case = format!("{name}: {directory} {entry} user {user} write {store} wp {wp}");
            assert_eq!(page_fault(r), error, "{case}");
            assert_eq!(r.cpu.state().cr2, error.map_or(0, |_| PAGE), "{case}");
            let (size, mask) = if name == "pae" {
                (8, u64::MAX)
            } else {
                (4, 0xFFFF_FFFF)
            };
            let left = r.get64(TABLE + size) & mask;
            let marks = match (error, store) {
                (Some(_), _) => 0,
                (None, true) => 0x60,
                (None, false) => 0x20,
            };
            assert_eq!(left, u64::from(frame) | entry as u64 | marks, "{case}");
        }
    }
}

#[test]
fn two_level_large_pages_need_pse_and_have_one_reserved_bit() {
    let mut r = two_level(&read(), 0x20_0083, 0);
    assert_eq!(page_fault(&mut r), Some(9), "bit 21 is reserved");
    // Without PSE the same entry leads to a table.
    let mut r = two_level(&read(), TABLE as u32 | 0x83, FRAME as u32 | 3);
    for i in 0..16 {
        r.put32(0x1_5000 + i * 4, (i as u32) << 12 | 7);
    }
    r.put32(0x1_0000, 0x1_5007);
    r.set(|s| s.cr4 &= !0x10);
    r.put32(FRAME, 0x77);
    r.run_to_hlt();
    assert_eq!((r.events().len(), r.cpu.state().gpr[0]), (0, 0x77));
    // Bits 13 to 20 are address bits 32 to 39.
    let mut r = two_level(&read(), 0x2083, 0);
    r.run_to_hlt();
    assert_eq!((r.events().len(), r.world.mmio[0].0), (0, 0x1_0000_1000));
}

#[test]
fn pae_reserved_bits_and_no_execute_fault() {
    let (table, frame) = (TABLE | 7, FRAME | 7);
    for (pointer, directory, entry, nx, error) in [
        (0x1_1000, table, frame, false, Some(0)),
        (0x1_1003, table, frame, false, Some(9)),
        (0x1_1001, table | 1 << 52, frame, false, Some(9)),
        (0x1_1001, table, frame | 1 << 62, false, Some(9)),
        (0x1_1001, table, frame | 1 << 40, false, Some(9)),
        (0x1_1001, table, frame | 1 << 63, false, Some(9)),
        (0x1_1001, table, frame | 1 << 63, true, None),
        (0x1_1001, 0x2087, frame, false, Some(9)),
        (0x1_1001, 0x1087, frame, false, None),
    ] {
        let mut r = pae(&read(), 0x1_1001, directory, entry);
        r.set(|s| s.efer = if nx { 0x800 } else { 0 });
        // The code's own entries stay good: the pointer under test is the second GiB's.
        if pointer != 0x1_1001 {
            r.put64(0x1_0008, pointer);
            r.set(|s| s.gpr[1] = PAGE | 1 << 30);
        }
        let case = format!("{pointer:#x} {directory:#x} {entry:#x} nx {nx}");
        assert_eq!(page_fault(&mut r), error, "{case}");
    }
    let mut r = pae(&jump(), 0x1_1001, table, frame | 1 << 63);
    r.set(|s| s.efer = 0x800);
    assert_eq!(
        page_fault(&mut r),
        Some(0x11),
        "a fetch says so where there is NX"
    );
    let mut r = two_level(&jump(), TABLE as u32 | 7, 0);
    assert_eq!(page_fault(&mut r), Some(0), "and does not where there is none");
}

/// A GDT with more entries behind the usual ones: 48 not present data, 50 expand-down data up to 0x8FFF, 58
/// execute-only code, 60 user data, 68 not present code.
fn segments(code: &[u8]) -> Rig {
    let mut r = Rig::protected(code);
    for (i, d) in [
        0x00CF_1300_0000_FFFFu64,
        0x0040_9700_0000_8FFF,
        0x00CF_9900_0000_FFFF,
        0x00CF_F300_0000_FFFF,
        0x00CF_1B00_0000_FFFF,
    ]
    .into_iter()
    .enumerate()
    {
        r.put64(0x1048 + i as u64 * 8, d);
    }
    r.set(|s| s.gdtr.limit = 0x6F);
    r
}

#[test]
fn segment_loads_check_type_privilege_and_presence() {
    payload!(load_ds, ".code32", "mov ds, eax", "hlt");
    payload!(load_ss, ".code32", "mov ss, eax", "hlt");
    payload!(use_null, ".code32", "mov ds, eax", "mov eax, [ecx]", "hlt");
    payload!(
        use_code,
        ".code32",
        "mov eax, cs:[ecx]",
        "mov cs:[ecx], eax",
        "hlt"
    );
    for (code, selector, fault) in [
        (load_ds(), 0x48, Some((11, 0x48))),
        (load_ss(), 0x48, Some((12, 0x48))),
        (load_ds(), 0x58, Some((13, 0x58))),
        (load_ss(), 0x60, Some((13, 0x60))),
        (load_ss(), 0x11, Some((13, 0x10))),
        (load_ss(), 0, Some((13, 0))),
        (load_ss(), 0x40, Some((13, 0x40))),
        (load_ds(), 0x70, Some((13, 0x70))),
        (load_ds(), 0x60, None),
        (load_ds(), 0, None),
        (use_null(), 0, Some((13, 0))),
        (use_code(), 0, Some((13, 0))),
    ] {
        let mut r = segments(&code);
        r.set(|s| (s.gpr[0], s.gpr[1]) = (selector, 0x9000));
        r.run_to_hlt();
        let seen = r.events().first().map(|e| (e.vector, e.error));
        assert_eq!(
            seen,
            fault.map(|(v, e)| (v, Some(e))),
            "{selector:#x} {code:02x?}"
        );
    }
}

#[test]
fn expand_down_segment_begins_behind_its_limit() {
    payload!(
        down,
        ".code32",
        "mov ds, eax",
        "mov ebx, [ecx]",
        "mov [edx], ebx",
        "hlt"
    );
    for (first, second, faults) in [(0x9000, 0x9000, 0), (0x8FFF, 0x9000, 1), (0x9000, 0x8FFD, 1)] {
        let mut r = segments(&down());
        r.set(|s| (s.gpr[0], s.gpr[1], s.gpr[2]) = (0x50, first, second));
        r.run_to_hlt();
        let seen: Vec<_> = r.events().iter().map(|e| (e.vector, e.error)).collect();
        assert_eq!(seen, vec![(13, Some(0)); faults], "{first:#x} {second:#x}");
    }
}

#[test]
fn gates_of_16_bits_push_words() {
    payload!(int_33, ".code32", "int 0x33");
    let mut r = Rig::protected(&int_33());
    r.put64(0x2000 + 0x33 * 8, 0x8600_0040_0000 | (HANDLERS + 0x33 * 16));
    let s = r.run_to_hlt();
    assert_eq!((s.gpr[4], s.rip), (0x7000 - 6, HANDLERS + 0x33 * 16 + 1));
    let frame = r.get64(0x7000 - 6) & 0xFFFF_FFFF;
    assert_eq!(frame, 0x40 << 16 | (CODE + 2));
}

#[test]
fn gate_and_stack_faults_name_what_is_wrong() {
    payload!(int_34, ".code32", "int 0x34");
    let at = 0x2000 + 0x34 * 8;
    let to = HANDLERS + 0x34 * 16;
    for (gate, ring_stack, user, fault) in [
        (0x0E00_0040_0000 | to, 0x10, false, (11, 0x34 * 8 + 2)),
        (0x8E00_0010_0000 | to, 0x10, false, (13, 0x10)),
        (0x8E00_0000_0000 | to, 0x10, false, (13, 0)),
        (0x8E00_0068_0000 | to, 0x10, false, (11, 0x68)),
        (0x8200_0040_0000 | to, 0x10, false, (13, 0x34 * 8 + 2)),
        (0x8E00_0040_0000 | to, 0x10, true, (13, 0x34 * 8 + 2)),
        (0xEE00_0040_0000 | to, 0x60, true, (10, 0x60)),
        (0xEE00_0040_0000 | to, 0, true, (10, 0)),
        (0xEE00_0040_0000 | to, 0x48, true, (12, 0x48)),
    ] {
        let mut r = segments(&int_34());
        r.put64(at, gate);
        // The fault itself is handled in ring 0 with the stack that it finds there.
        r.put32(0x1808, ring_stack);
        if user {
            to_user(&mut r);
        }
        let exit = r.run();
        let e = r.events()[0];
        assert_eq!(
            (e.vector, e.error, e.rip),
            (fault.0, Some(fault.1), CODE),
            "{gate:#x} {exit:?}"
        );
    }
}

/// Found by random code: case 1851087 of the soak's seed.
#[test]
fn alignment_checks_without_end_shut_the_processor_down() {
    for (stack, exit) in [(0x6000, Exit::Budget), (0x6002, Exit::TripleFault)] {
        let mut r = Rig::protected(&read());
        to_user(&mut r);
        // Handlers run in ring 3, on the stack that is there.
        for v in 0..32 {
            r.put64(0x2000 + v * 8, 0xEE00_0018_0000 | (HANDLERS + v * 16));
        }
        r.set(|s| {
            s.cr0 |= cr0::AM;
            s.rflags |= 1 << 18;
            (s.gpr[1], s.gpr[4]) = (0x9001, stack);
        });
        assert_eq!(r.cpu.run(&mut r.world, 2), exit);
        assert_eq!(r.events()[0].vector, 17);
    }
}

#[test]
fn instructions_of_legacy_modes_fault_as_they_should() {
    payload!(into_, ".code32", "mov al, 0x7F", "inc al", "into");
    payload!(bound_, ".code32", "bound eax, [ecx]");
    payload!(aam_, ".code32", ".byte 0xD4, 0");
    payload!(lds_, ".code32", ".byte 0xC5, 0x00");
    for (code, vector) in [(into_(), 4), (bound_(), 5), (aam_(), 0), (lds_(), 13)] {
        let mut r = Rig::protected(&code);
        r.put32(0x9000, 1);
        r.put32(0x9004, 2);
        // A far pointer to a selector past the table.
        r.put32(0xA004, 0x1000);
        r.set(|s| (s.gpr[0], s.gpr[1]) = (0xA000, 0x9000));
        let s = r.run_to_hlt();
        assert_eq!(s.rip, HANDLERS + vector * 16 + 1, "{code:02x?}");
    }
}

#[test]
fn real_mode_refuses_protected_mode_instructions_and_accesses_past_the_limit() {
    payload!(lldt_, ".code16", "lldt ax");
    payload!(ltr_, ".code16", "ltr ax");
    payload!(lar_, ".code16", "lar ax, bx");
    payload!(verr_, ".code16", "verr ax");
    payload!(arpl_, ".code16", "arpl ax, bx");
    payload!(syscall_, ".code16", "syscall");
    payload!(past, ".code16", "mov ax, [bx]");
    payload!(past_stack, ".code16", "mov ax, [bp]");
    payload!(inside, ".code16", "mov al, [bx]", "hlt");
    for (code, vector) in [
        (lldt_(), 6),
        (ltr_(), 6),
        (lar_(), 6),
        (verr_(), 6),
        (arpl_(), 6),
        (syscall_(), 6),
        (past(), 13),
        (past_stack(), 12),
    ] {
        let mut r = Rig::real(&code);
        r.set(|s| (s.gpr[3], s.gpr[5]) = (0xFFFF, 0xFFFF));
        let s = r.run_to_hlt();
        assert_eq!(s.rip, HANDLERS + vector * 16 + 1, "{code:02x?}");
        assert_eq!(s.gpr[4], 0x7000 - 6, "no error code in real mode");
    }
    let mut r = Rig::real(&inside());
    r.set(|s| s.gpr[3] = 0xFFFF);
    r.run_to_hlt();
    assert!(r.events().is_empty());
}
