// SPDX-License-Identifier: MIT
//! What the model must reject, row by row (`spec/sev.md` 4.9), driven by raw requests.

mod id_block;
mod init;
mod legacy;
mod memory;
mod rig;
mod snp;
mod view;
