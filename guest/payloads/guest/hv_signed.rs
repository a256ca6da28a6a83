// SPDX-License-Identifier: MIT
//! Variables that the test has put into the image, written as they are: signed ones among them.
//!
//! Always true: each must have the status that comes with it. Not here: variables of this payload's own (`hv_bios`).

use crate::hv_bios::{get, set_from, variable_byte};
use guest_rt::memory;
use guest_rt::protocol::uefi_image::writes;
use guest_rt::report::{equal, info};

/// EFI_GLOBAL_VARIABLE.
const GLOBAL: [u64; 2] = [0x11D2_93CA_8BE4_DF61, 0x8C2B_0398_E000_0DAA];

/// Writes them all, then says in which mode the platform is.
pub(crate) fn check_writes() {
    let mut at = writes::GPA;
    if memory::bytes(at, writes::MAGIC.len()) == writes::MAGIC {
        at += writes::MAGIC.len() as u64;
        while memory::read_u32(at) != writes::END {
            let [status, attributes, name_len, len] = [0, 4, 8, 12].map(|field| memory::read_u32(at + field));
            let vendor = [memory::read_u64(at + 16), memory::read_u64(at + 24)];
            let (name, data) = (at + 32, at + 32 + u64::from(name_len));
            let found = set_from((name, name_len), vendor, attributes, (data, len));
            equal("nvram-signed-write", found, status.into());
            at = data + u64::from(len);
        }
    }
    for name in ["SecureBoot", "SetupMode"] {
        equal("nvram-mode", get(name, GLOBAL, 1), 0);
        info(name, format_args!("{}", variable_byte()));
    }
}
