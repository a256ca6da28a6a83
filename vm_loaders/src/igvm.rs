// SPDX-License-Identifier: MIT
//! IGVM files: read, check, plan, relocate, write.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use launch_plan::Isolation;
//! use vm_loaders::igvm::{File, MappedFile};
//!
//! let mapped = MappedFile::open("guest.igvm".as_ref())?; // read-only, private, nothing copied
//! let file = File::read(mapped.bytes())?;                // structure only
//! for problem in file.check() {                          // every problem, with code and place
//!     println!("{}: {problem}", problem.severity());
//! }
//! let plan = file.plan(Isolation::Vsm)?;                 // one platform, interpreted
//! println!("{plan}");
//! mapped.verify_unchanged()?;                            // before bytes are used, also at reset
//! # Ok(())
//! # }
//! ```
//!
//! The other direction is [`encode()`]: plans become a file. `--igvm-vtl2-relocation-type` is parsed by
//! [`Vtl2Relocation`]; [`File::plan_at`] moves an image. [`Edit`] changes a file and leaves everything that is
//! not named as it is.
//!
//! Always true: [`File`] is lossless (`write(read(bytes)) == bytes`), [`File::plan`] is the only
//! interpretation of directives in the tree, and encoding is its inverse: `plan(encode(plan)) == plan`.
//! A file is untrusted: no input panics, overflows, or takes more memory than a small multiple of its
//! header count.
//!
//! [`corim_document`] makes the CoRIM document that endorses a digest.
//!
//! Not here: launching, measuring, printing (`igvmtool`), and what foreign CoRIM documents say.

mod check;
mod codes;
mod context;
mod corim;
mod edit;
mod encode;
mod endorse;
mod file;
mod header;
mod interpret;
mod mapped;
mod page_tables;
mod platform_type;
mod problem;
mod relocate;
mod relocation_type;
mod sigbus;
pub mod support;

pub use check::Platform;
pub use codes::{CODES, Code, CodeInfo, Severity};
pub use corim::corim_document;
pub use edit::{Edit, EditError, NewHeader};
pub use encode::{EncodeError, EncodeOptions, Encoded, encode, encode_with_records};
pub use endorse::snp_id_block;
pub use file::{File, FixedHeader, FormatVersion};
pub use header::{Header, HeaderError, RawHeader, Section, type_name};
pub use mapped::{MapError, MappedFile};
pub use page_tables::PageTableError;
pub use platform_type::{isolation_of, platform_type};
pub use problem::{MAX_PROBLEMS, Problem, Refused};
pub use relocate::{RelocateError, relocate};
pub use relocation_type::{RelocationTypeError, Vtl2Relocation};
