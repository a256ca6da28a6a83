// SPDX-License-Identifier: MIT
//! What the model must reject, row by row (`spec/sev.md` 4.9), and what it measures, driven by raw requests.

mod digests;
mod id_block;
mod init;
mod legacy;
mod memory;
mod random;
mod rig;
mod snp;
mod view;
