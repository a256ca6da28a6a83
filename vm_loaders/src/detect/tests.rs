// SPDX-License-Identifier: MIT
//! One plan per kind, and plans that are two kinds.

use super::*;
use crate::uefi::{self, ConfigType};
use launch_plan::{
    Import, Isolation, NativeContext, Origin, PageKind, PlanBuilder, PlatformFacts, VpContext,
};
use std::borrow::Cow;

struct Image {
    facts: PlatformFacts,
    pages: Vec<(u64, Vec<u8>)>,
    state: Option<NativeContext>,
}

impl Image {
    fn new() -> Self {
        Self {
            facts: PlatformFacts::new(Isolation::Native, Arch::X64),
            pages: Vec::new(),
            state: None,
        }
    }

    fn page(mut self, gpa: u64, bytes: &[u8], at: usize) -> Self {
        let mut page = vec![0; 4096];
        page[at..at + bytes.len()].copy_from_slice(bytes);
        self.pages.push((gpa, page));
        self
    }

    fn state(mut self, change: fn(&mut NativeContext)) -> Self {
        let mut context = NativeContext::default();
        change(&mut context);
        self.state = Some(context);
        self
    }

    fn plan(self) -> LaunchPlan<'static> {
        let mut builder = PlanBuilder::new(self.facts);
        for (gpa, page) in self.pages {
            let import = Import {
                gpa,
                len: 4096,
                large: false,
                kind: PageKind::Measured,
                contents: Contents::Bytes(Cow::Owned(page)),
            };
            builder.import(import, Origin::Host("test page")).unwrap();
        }
        if let Some(context) = self.state {
            let context = VpContext {
                vp: 0,
                gpa: 0,
                state: VpState::Native(Box::new(context)),
            };
            builder.vp_context(context, Origin::Host("test context")).unwrap();
        }
        builder.finish()
    }

    fn detect(self) -> Detection {
        detect(&self.plan()).unwrap()
    }
}

#[test]
fn firmware_volume_in_6_mib_is_uefi() {
    let image = uefi::tests_support::msvm_image(0x240);
    let plan = uefi::plan(&image, ConfigType::None).unwrap();
    assert_eq!(
        detect(&plan).unwrap().to_string(),
        "type=uefi (a firmware volume at gpa 0x6e0000 in 6 MiB of pages at gpa 0x100000)"
    );
}

#[test]
fn firmware_volume_alone_is_not_uefi() {
    let image = Image::new().page(0x6E_0000, b"_FVH", 40);
    assert_eq!(image.detect().payload, PayloadKind::Generic);
}

#[test]
fn footer_below_4_gib_is_ovmf() {
    let image = Image::new().page(0xFFFF_F000, &OVMF_FOOTER.to_bytes_le(), 0xFD0);
    assert_eq!(
        image.detect().to_string(),
        "type=ovmf (OVMF's footer guid at gpa 0xffffffd0)"
    );
}

#[test]
fn zero_page_start_info_and_entry_header_are_linux() {
    let zero_page = Image::new()
        .page(0x7000, b"HdrS", 0x202)
        .state(|c| c.gpr[gpr::RSI] = 0x7000);
    assert_eq!(
        zero_page.detect().to_string(),
        "type=linux (a Linux zero page at gpa 0x7000, in rsi)"
    );
    let start_info = Image::new()
        .page(0x7000, &START_INFO_MAGIC.to_le_bytes(), 0)
        .state(|c| c.gpr[gpr::RBX] = 0x7000);
    assert_eq!(
        start_info.detect().to_string(),
        "type=linux (pvh start info at gpa 0x7000, in rbx)"
    );
    let entry = Image::new()
        .page(0x10_0000, b"HdrS", 2)
        .state(|c| c.rip = 0x10_0000);
    assert_eq!(
        entry.detect().to_string(),
        "type=linux (a Linux boot header at the entry point 0x100000)"
    );
}

#[test]
fn registers_that_point_nowhere_are_harmless() {
    let image = Image::new().state(|c| {
        c.rip = u64::MAX;
        c.gpr = [u64::MAX; 16];
    });
    assert_eq!(image.detect().payload, PayloadKind::Generic);
}

#[test]
fn magic_may_cross_from_one_page_to_the_next() {
    let image = Image::new()
        .page(0x1000, b"Hd", 0xFFE)
        .page(0x2000, b"rS", 0)
        .state(|c| c.rip = 0x1FFC);
    assert_eq!(image.detect().payload, PayloadKind::Linux);
}

#[test]
fn vtl2_is_openhcl_whatever_else_is_there() {
    let mut image = Image::new().page(0xFFFF_F000, &OVMF_FOOTER.to_bytes_le(), 0xFD0);
    image.facts.highest_vtl = 2;
    image.facts.isolation = Isolation::Vsm;
    assert_eq!(image.detect().to_string(), "type=openhcl (it needs vtl 2)");
}

#[test]
fn native_images_need_no_vtl_whatever_their_header_says() {
    let mut image = Image::new().page(0xFFFF_F000, &OVMF_FOOTER.to_bytes_le(), 0xFD0);
    image.facts.highest_vtl = 2;
    image.facts.isolation = Isolation::Native;
    assert_eq!(image.detect().payload, PayloadKind::Ovmf);
}

#[test]
fn two_matches_are_an_error_with_both() {
    let image = Image::new()
        .page(0xFFFF_F000, &OVMF_FOOTER.to_bytes_le(), 0xFD0)
        .page(0x7000, b"HdrS", 0x202)
        .state(|c| c.gpr[gpr::RSI] = 0x7000);
    assert_eq!(
        detect(&image.plan()).unwrap_err().to_string(),
        "the image could be type=ovmf (OVMF's footer guid at gpa 0xffffffd0) or type=linux (a Linux zero \
         page at gpa 0x7000, in rsi); name its type with type="
    );
}

#[test]
fn empty_plan_is_generic() {
    assert_eq!(Image::new().detect().payload, PayloadKind::Generic);
}
