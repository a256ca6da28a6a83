// SPDX-License-Identifier: MIT
//! OVMF firmware images: the tables at their end, and plans that start them.
//!
//! Always true: an image is untrusted input; its tables are bounds-checked and a missing one is an error
//! only where a platform needs it. A plan holds the whole image ending at 4 GiB, and for the isolated
//! platforms what the image's own metadata asks for, in table order; a TDX plan holds just that.
//! Not here: the machine that OVMF runs on, what variables say, fw_cfg.

mod save_area;
mod tables;
mod variables;
mod wrap;

pub use save_area::{ResetVp, reset_save_area};
pub(crate) use tables::FOOTER;
pub use tables::{IgvmArea, OvmfError, Section, SectionKind, Tables, TdxKind, TdxSection};
pub use variables::{VariableStore, VariablesError, variable_store, variable_volume_len};
pub(crate) use wrap::zeros;
pub use wrap::{Entry, WrapOptions, plan};
