// SPDX-License-Identifier: MIT
//! Hypercalls through the page: statuses, results, and that the page keeps registers.

use crate::hv_interface::{HYPERCALL_PAGE, PARAMETERS};
use guest_rt::hypercall::call;
use guest_rt::memory;
use guest_rt::report::{check, equal};

const POST_MESSAGE: u64 = 0x5C;
const SIGNAL_EVENT: u64 = 0x5D;
const GET_VP_INDEX: u64 = 0x9A;
const FAST: u64 = 1 << 16;
const INVALID_CODE: u64 = 2;
const INVALID_ALIGNMENT: u64 = 4;
const INVALID_CONNECTION: u64 = 0x12;

/// The result, and whether every other register came back as it was.
fn call_page(control: u64, input: u64, output: u64) -> (u64, bool) {
    call(HYPERCALL_PAGE, control, input, output)
}

fn status(control: u64, input: u64, output: u64) -> u64 {
    call_page(control, input, output).0 & 0xFFFF
}

pub(crate) fn check_all() {
    let (result, kept) = call_page(0x1234_0000_7777, 0x8765_4321_1234_5678, 0xFEDC_BA98_7654_3210);
    check_kept(kept);
    equal("hypercall-reserved-rejected", result & 0xFFFF, 3);
    equal("hypercall-unknown", status(0x7777, 0, 0), INVALID_CODE);
    equal(
        "hypercall-unaligned",
        status(POST_MESSAGE, PARAMETERS + 1, 0),
        INVALID_ALIGNMENT,
    );

    // Connection 0x99999, message type 1, eight bytes.
    memory::write_u32(PARAMETERS, 0x9_9999);
    memory::write_u32(PARAMETERS + 4, 0);
    memory::write_u32(PARAMETERS + 8, 1);
    memory::write_u32(PARAMETERS + 12, 8);
    equal(
        "post-message-no-connection",
        status(POST_MESSAGE, PARAMETERS, 0),
        INVALID_CONNECTION,
    );
    let signal = status(SIGNAL_EVENT | FAST, 0x9_9999, 0);
    equal("signal-event-no-connection", signal, INVALID_CONNECTION);

    // The caller's partition, VTL 0, local APIC id 0.
    memory::write_u32(PARAMETERS, u32::MAX);
    memory::write_u32(PARAMETERS + 4, u32::MAX);
    memory::write_u32(PARAMETERS + 8, 0);
    memory::write_u32(PARAMETERS + 12, 0);
    memory::write_u32(PARAMETERS + 16, 0);
    memory::write_u32(PARAMETERS + 0x100, 0xFFFF);
    let (result, kept) = call_page(GET_VP_INDEX | 1 << 32, PARAMETERS, PARAMETERS + 0x100);
    check_kept(kept);
    equal("vp-index-of-apic-id", result, 1 << 32);
    equal("vp-index-answer", memory::read_u32(PARAMETERS + 0x100).into(), 0);
}

fn check_kept(kept: bool) {
    check("hypercall-keeps-registers", kept, format_args!(""));
}
