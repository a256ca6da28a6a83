// SPDX-License-Identifier: MIT
//! The files of a load mode, mapped.

use openvmm_defs::LoadMode;
use vm_loaders::igvm::{MapError, MappedFile};

/// Mapped files. They stay mapped as long as the VM may be reset.
#[derive(Debug)]
pub(crate) enum Files {
    Igvm(MappedFile),
    Uefi(MappedFile),
    Linux {
        kernel: MappedFile,
        initrd: Option<MappedFile>,
    },
    Ovmf(MappedFile),
}

impl Files {
    /// Maps what `load` names.
    pub(crate) fn open(load: &LoadMode) -> Result<Self, MapError> {
        Ok(match load {
            LoadMode::Igvm { path, .. } => Self::Igvm(MappedFile::open(path)?),
            LoadMode::Uefi { firmware, .. } => Self::Uefi(MappedFile::open(firmware)?),
            LoadMode::Ovmf { firmware } => Self::Ovmf(MappedFile::open(firmware)?),
            LoadMode::Linux { kernel, initrd, .. } => Self::Linux {
                kernel: MappedFile::open(kernel)?,
                initrd: initrd.as_deref().map(MappedFile::open).transpose()?,
            },
        })
    }

    /// The file that the plan is made from, for messages.
    pub(crate) fn name(&self) -> String {
        let (Self::Igvm(file) | Self::Uefi(file) | Self::Ovmf(file) | Self::Linux { kernel: file, .. }) =
            self;
        file.name().display().to_string()
    }

    /// Whether the files are still what was mapped.
    pub(crate) fn verify_unchanged(&self) -> Result<(), MapError> {
        match self {
            Self::Igvm(file) | Self::Uefi(file) | Self::Ovmf(file) => file.verify_unchanged(),
            Self::Linux { kernel, initrd } => {
                kernel.verify_unchanged()?;
                initrd.as_ref().map_or(Ok(()), MappedFile::verify_unchanged)
            }
        }
    }
}
