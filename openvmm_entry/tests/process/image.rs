// SPDX-License-Identifier: MIT
//! A guest in 74 bytes: echoes keys on COM1; `q` powers off, `r` resets, `t` writes the test-exit device,
//! `c` leaves a word in the error range and triple faults.

use launch_plan::{
    Arch, Contents, Import, Isolation, NativeContext, Origin, PageKind, PlanBuilder, PlatformFacts,
    VpContext, VpState,
};
use std::path::Path;
use vm_loaders::igvm::{EncodeOptions, encode};
use x86defs::{SegmentAttributes, SegmentRegister, cr0};

const ENTRY: u64 = 0x10_0000;
const ERROR_RANGE: u64 = 0x20_0000;

#[rustfmt::skip]
const CODE: &[u8] = &[
    0xBA, 0xF8, 0x03, 0, 0,                                 //       mov edx, 0x3f8
    0xB0, b'>',                                             //       mov al, '>'
    0xEE,                                                   //       out dx, al
    0xBA, 0xFD, 0x03, 0, 0,                                 // wait: mov edx, 0x3fd
    0xEC,                                                   //       in al, dx
    0xA8, 0x01,                                             //       test al, 1
    0x74, 0xF6,                                             //       jz wait
    0xBA, 0xF8, 0x03, 0, 0,                                 //       mov edx, 0x3f8
    0xEC,                                                   //       in al, dx
    0xEE,                                                   //       out dx, al
    0x3C, b'q',                                             //       cmp al, 'q'
    0x75, 0x0C,                                             //       jne r
    0xBA, 0x04, 0x04, 0, 0,                                 //       mov edx, 0x404
    0xB8, 0x00, 0x20, 0, 0,                                 //       mov eax, 0x2000
    0x66, 0xEF,                                             //       out dx, ax
    0x3C, b'r',                                             // r:    cmp al, 'r'
    0x75, 0x08,                                             //       jne t
    0xBA, 0x33, 0x04, 0, 0,                                 //       mov edx, 0x433
    0xB0, 0x01,                                             //       mov al, 1
    0xEE,                                                   //       out dx, al
    0x3C, b't',                                             // t:    cmp al, 't'
    0x75, 0x0B,                                             //       jne c
    0xBA, 0xF4, 0, 0, 0,                                    //       mov edx, 0xf4
    0xB8, 0x2A, 0, 0, 0,                                    //       mov eax, 42
    0xEF,                                                   //       out dx, eax
    0x3C, b'c',                                             // c:    cmp al, 'c'
    0x75, 0xC0,                                             //       jne wait
    0xC7, 0x05, 0, 0, 0x20, 0, b'o', b'o', b'p', b's',      //       mov dword [0x200000], "oops"
    0x0F, 0x0B,                                             //       ud2
];

/// Writes the guest as an IGVM file: NATIVE, flat 32-bit protected mode, an empty IDT.
pub(crate) fn write(path: &Path) {
    let here = Origin::Host("test guest");
    let mut builder = PlanBuilder::new(PlatformFacts::new(Isolation::Native, Arch::X64));
    let contents = Contents::borrowed(CODE);
    let import = Import {
        gpa: ENTRY,
        len: 0x1000,
        large: false,
        kind: PageKind::Measured,
        contents,
    };
    builder.import(import, here).unwrap();
    builder.error_range(ERROR_RANGE, 0x1000, here).unwrap();
    let segment = |selector, attributes| SegmentRegister {
        selector,
        attributes: SegmentAttributes(attributes),
        limit: u32::MAX,
        base: 0,
    };
    let context = NativeContext {
        rip: ENTRY,
        rflags: 2,
        cr0: cr0::PE | cr0::ET,
        cs: segment(8, 0xC09B),
        data: segment(16, 0xC093),
        ..NativeContext::default()
    };
    builder
        .vp_context(
            VpContext {
                vp: 0,
                gpa: 0,
                state: VpState::Native(Box::new(context)),
            },
            here,
        )
        .unwrap();
    let plans = [builder.finish()];
    let encoded = encode(&plans, &EncodeOptions::default()).unwrap();
    encoded
        .write_to(&mut std::fs::File::create(path).unwrap())
        .unwrap();
}
