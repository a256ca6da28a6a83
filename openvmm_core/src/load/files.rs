// SPDX-License-Identifier: MIT
//! The files of a load mode, mapped.

use openvmm_defs::LoadMode;
use std::path::PathBuf;
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
    Ovmf {
        firmware: MappedFile,
        kernel: Option<MappedFile>,
        initrd: Option<MappedFile>,
    },
}

impl Files {
    /// Maps what `load` names.
    pub(crate) fn open(load: &LoadMode) -> Result<Self, MapError> {
        Ok(match load {
            LoadMode::Igvm { path, .. } => Self::Igvm(MappedFile::open(path)?),
            LoadMode::Uefi { firmware, .. } => Self::Uefi(MappedFile::open(firmware)?),
            LoadMode::Ovmf { firmware, direct } => Self::Ovmf {
                firmware: MappedFile::open(firmware)?,
                kernel: open(direct.as_ref().map(|d| &d.kernel))?,
                initrd: open(direct.as_ref().and_then(|d| d.initrd.as_ref()))?,
            },
            LoadMode::Linux { kernel, initrd, .. } => Self::Linux {
                kernel: MappedFile::open(kernel)?,
                initrd: open(initrd.as_ref())?,
            },
        })
    }

    /// The file that the plan is made from, for messages.
    pub(crate) fn name(&self) -> String {
        let (Self::Igvm(file)
        | Self::Uefi(file)
        | Self::Ovmf { firmware: file, .. }
        | Self::Linux { kernel: file, .. }) = self;
        file.name().display().to_string()
    }

    /// Whether the files are still what was mapped.
    pub(crate) fn verify_unchanged(&self) -> Result<(), MapError> {
        let files = match self {
            Self::Igvm(file) | Self::Uefi(file) => [Some(file), None, None],
            Self::Linux { kernel, initrd } => [Some(kernel), initrd.as_ref(), None],
            Self::Ovmf {
                firmware,
                kernel,
                initrd,
            } => [Some(firmware), kernel.as_ref(), initrd.as_ref()],
        };
        files
            .into_iter()
            .flatten()
            .try_for_each(MappedFile::verify_unchanged)
    }
}

fn open(path: Option<&PathBuf>) -> Result<Option<MappedFile>, MapError> {
    path.map(|path| MappedFile::open(path)).transpose()
}
