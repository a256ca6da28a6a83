// SPDX-License-Identifier: MIT
//! UEFI variables as UEFI 2.10 section 8.2 defines them, kept by the host in memory and, if wanted, in a file.
//!
//! Always true: only non-volatile variables come from the guest, because firmware keeps volatile ones itself;
//! a call that says that it has written has put the whole new state into the file and onto the disk; a call
//! that fails has changed nothing; sizes are bounded by [`MAX_NAME`], [`MAX_DATA`] and [`MAX_STORAGE`],
//! whatever the guest does. Not here: how a guest calls (`uefi_device`), OVMF's variables (`chipset::flash`).
#![forbid(unsafe_code)]

mod auth;
mod file;
mod key;
mod pkcs7;
mod signature_list;
mod store;
pub mod template;

#[cfg(test)]
mod tests;

pub use file::FileError;
pub use key::{Key, NameError, name};
pub use store::{Nvram, StorageInfo, Variable};

/// Bytes of a variable's name, its terminating NUL included.
pub const MAX_NAME: usize = 2 << 10;
/// Bytes of a variable's data.
pub const MAX_DATA: usize = 32 << 10;
/// Bytes of all variables, each with its name and [`OVERHEAD`].
pub const MAX_STORAGE: usize = 256 << 10;
/// What a variable costs beyond its name and data, in bytes.
pub const OVERHEAD: usize = 64;

/// Attributes of a variable (UEFI 8.2.1).
pub mod attribute {
    /// Kept over resets.
    pub const NON_VOLATILE: u32 = 1;
    /// Visible during boot services.
    pub const BOOT_SERVICE: u32 = 2;
    /// Visible at run time.
    pub const RUNTIME: u32 = 4;
    /// A hardware error record.
    pub const HARDWARE_ERROR: u32 = 8;
    /// Deprecated: writes with a counter.
    pub const AUTHENTICATED: u32 = 0x10;
    /// Writes are signed and carry a time.
    pub const TIME_BASED: u32 = 0x20;
    /// The data goes behind what is there; never stored.
    pub const APPEND: u32 = 0x40;
    /// Writes with certificates kept beside the variable.
    pub const ENHANCED: u32 = 0x80;
    /// What most variables have: kept, and visible always.
    pub const USUAL: u32 = NON_VOLATILE | BOOT_SERVICE | RUNTIME;
}

/// Why a call failed: numbers of UEFI appendix D without the error bit, as the firmware wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Status {
    /// EFI_INVALID_PARAMETER.
    InvalidParameter = 2,
    /// EFI_UNSUPPORTED.
    Unsupported = 3,
    /// EFI_BUFFER_TOO_SMALL.
    BufferTooSmall = 5,
    /// EFI_DEVICE_ERROR: the host could not write the file.
    DeviceError = 7,
    /// EFI_WRITE_PROTECTED.
    WriteProtected = 8,
    /// EFI_OUT_OF_RESOURCES.
    OutOfResources = 9,
    /// EFI_NOT_FOUND.
    NotFound = 14,
    /// EFI_SECURITY_VIOLATION.
    SecurityViolation = 26,
}

/// Namespaces of variables.
pub mod vendor {
    use uuid::{Uuid, uuid};

    /// EFI_GLOBAL_VARIABLE: boot options, consoles, PK, KEK.
    pub const GLOBAL: Uuid = uuid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
    /// EFI_IMAGE_SECURITY_DATABASE_GUID: db, dbx, dbt, dbr.
    pub const IMAGE_SECURITY: Uuid = uuid!("d719b2cb-3d3a-4596-a3bc-dad00e67656f");
    /// EFI_HARDWARE_ERROR_VARIABLE.
    pub const HARDWARE_ERROR: Uuid = uuid!("414e6bdd-e47b-47cc-b244-bb61020cf516");
    /// MEMORY_OVERWRITE_CONTROL: the request to clear memory at the next start.
    pub const MEMORY_OVERWRITE: Uuid = uuid!("e20939be-32d4-41be-a150-897f85d49829");
}
