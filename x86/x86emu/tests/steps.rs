// SPDX-License-Identifier: MIT
//! Single steps by RFLAGS.TF (SDM volume 3 section 18.3.1.4): where they are taken, and where not.

#[path = "shared/rig.rs"]
mod rig;

use rig::{CODE, HANDLERS, Rig};

const TF: u64 = 0x100;
const DATA: u64 = 0x9000;

/// A machine that single-steps `code` and whose #DB handler keeps the flags of the frame in R15 and returns.
fn stepped(code: &[u8]) -> Rig {
    payload!(
        handler,
        "shl r15, 1",
        "bt dword ptr [rsp + 16], 16",
        "adc r15, 0",
        "iretq"
    );
    let mut r = Rig::long(code);
    r.world.ram.write((HANDLERS + 16) as usize, &handler());
    r.set(|s| {
        s.rflags |= TF;
        (s.gpr[0], s.gpr[1], s.gpr[15]) = (0x5A5A, 4, 0);
        (s.gpr[6], s.gpr[7]) = (DATA, DATA + 0x100);
    });
    r
}

/// Where the traps were taken, as offsets in the code.
fn traps(r: &Rig) -> Vec<u64> {
    let events = r.events();
    assert!(events.iter().all(|e| e.vector == 1), "{events:x?}");
    events.iter().map(|e| e.rip - CODE).collect()
}

payload!(
    fill,
    "rep stosb",
    "pushfq",
    "and dword ptr [rsp], ~0x100",
    "popfq",
    "hlt"
);
payload!(
    copy,
    "rep movsw",
    "pushfq",
    "and dword ptr [rsp], ~0x100",
    "popfq",
    "hlt"
);
payload!(
    find,
    "repne scasb",
    "pushfq",
    "and dword ptr [rsp], ~0x100",
    "popfq",
    "hlt"
);

#[test]
fn repetition_traps_behind_each_element() {
    for (count, elements) in [(4, 4), (1, 1), (0, 1)] {
        for code in [fill(), copy()] {
            let mut r = stepped(&code);
            r.set(|s| s.gpr[1] = count);
            let s = r.run_to_hlt();
            let (rep, end) = (code.len() as u64 - 10, code.len() as u64 - 1);
            let mut expected = vec![0; elements - 1];
            expected.extend([rep, rep + 1, end - 1, end]);
            assert_eq!(traps(&r), expected, "{count}: {code:02x?}");
            assert_eq!(s.gpr[1], 0);
            // RF is set in the frames of all elements but the last.
            assert_eq!(s.gpr[15], ((1 << elements) - 2) << 3, "{count}: {code:02x?}");
        }
    }
    let mut r = stepped(&fill());
    r.run_to_hlt();
    assert_eq!(r.get64(DATA + 0x100), 0x5A5A_5A5A);
}

#[test]
fn search_that_ends_early_traps_behind_the_element_that_ends_it() {
    let mut r = stepped(&find());
    r.put64(DATA + 0x100, 0x5A_00);
    let s = r.run_to_hlt();
    assert_eq!((traps(&r)[..3].to_vec(), s.gpr[1]), (vec![0, 2, 3], 2));
}

#[test]
fn breakpoint_at_a_repetition_is_hit_once() {
    let mut r = stepped(&fill());
    r.set(|s| (s.dr[0], s.dr[5]) = (CODE, 0x401));
    r.run_to_hlt();
    assert_eq!(
        traps(&r)[..5],
        [0, 0, 0, 0, 2],
        "before it, and behind four elements"
    );
}

#[test]
fn data_breakpoint_in_a_repetition_traps_behind_the_element() {
    let mut r = stepped(&fill());
    r.set(|s| {
        s.rflags &= !TF;
        (s.dr[0], s.dr[5]) = (DATA + 0x101, 0x1_0401);
    });
    let s = r.run_to_hlt();
    assert_eq!((traps(&r), s.dr[4] & 0x400F), (vec![0], 1));
}

#[test]
fn repetition_behind_a_stack_load_traps_behind_its_first_element() {
    payload!(behind, "mov ss, eax", "rep stosb", "nop");
    let mut r = stepped(&behind());
    r.set(|s| s.gpr[0] = 0x10);
    r.cpu.run(&mut r.world, 1 << 15);
    assert_eq!(traps(&r)[..4], [2, 2, 2, 4]);
}

#[test]
fn software_interrupt_ends_without_a_trap() {
    payload!(interrupt, "int 0x80");
    let mut r = stepped(&interrupt());
    r.run_to_hlt();
    let vectors: Vec<_> = r.events().iter().map(|e| e.vector).collect();
    assert_eq!(
        vectors,
        [] as [u8; 0],
        "int is no exception, and its handler runs without TF"
    );
    assert_eq!(r.cpu.rip(), HANDLERS + 0x80 * 16 + 1);
}
