// SPDX-License-Identifier: MIT
//! The file that keeps the variables of OVMF (`--vars`): found or made, checked, and put in the machine.
//!
//! Always true: a file that is not there is made whole or not at all; one VM at a time uses a file; a
//! file that holds something else is refused before the guest starts. Not here: how writes get into the
//! file (`chipset::flash`), where the store is in memory (`vm_loaders::ovmf`).

use anyhow::{Context, bail};
use chipset::flash::{BLOCK, Flash};
use openvmm_defs::GpaRange;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use vm_loaders::ovmf::{VariableStore, variable_volume_len};

/// Length of the file at `path`, if there is one.
pub(crate) fn file_len(path: &Path) -> anyhow::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("--vars {}", path.display())),
    }
}

/// Bytes of the store: those of the template, else those of the file.
pub(crate) fn range(store: &VariableStore, file_len: Option<u64>) -> anyhow::Result<GpaRange> {
    let len = match (&store.template, file_len) {
        (Some(template), _) => template.len() as u64,
        (None, Some(len)) if len > 0 => len,
        _ => bail!(
            "the firmware image holds code only, so there is nothing to make a new file of variables from; copy the \
             image's variable store (such as OVMF_VARS_4M.fd) to that file first"
        ),
    };
    Ok(GpaRange::new(store.gpa, len))
}

/// The flash over the file at `path`, which is made from the store's template if it is not there.
pub(crate) fn open(path: &Path, store: &VariableStore) -> anyhow::Result<Flash> {
    open_inner(path, store).with_context(|| format!("--vars {}", path.display()))
}

fn open_inner(path: &Path, store: &VariableStore) -> anyhow::Result<Flash> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => create(path, store)?,
        other => other?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            bail!("another vm uses this file; give each vm a file of its own");
        }
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the file"),
    }
    let mut contents = Vec::new();
    file.read_to_end(&mut contents)?;
    check(&contents, store)?;
    Ok(Flash::new(contents, file))
}

/// The file is a variable store, and one of the length that the firmware was built for.
fn check(contents: &[u8], store: &VariableStore) -> anyhow::Result<()> {
    let len = contents.len();
    let Some(told) = variable_volume_len(contents) else {
        bail!(
            "this is not a variable store: a firmware volume of variables begins with its header; give a file that \
             openvmm has made or one such as OVMF_VARS_4M.fd"
        );
    };
    if told != len as u64 || !len.is_multiple_of(BLOCK) {
        bail!("the variable store says that it is {told:#x} bytes long, but the file has {len:#x}");
    }
    match &store.template {
        Some(template) if template.len() != len => bail!(
            "the file has {len:#x} bytes, but this firmware's variable store has {:#x}; give each firmware a file of \
             its own",
            template.len()
        ),
        _ => Ok(()),
    }
}

/// Writes the template beside `path` and moves it there.
fn create(path: &Path, store: &VariableStore) -> anyhow::Result<File> {
    let template = store.template.as_deref().context("the file is not there")?;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&name)?;
    file.write_all(template)?;
    file.sync_all()?;
    fs::rename(&name, path)?;
    tracing::info!("made {} from the variables in the firmware image", path.display());
    Ok(OpenOptions::new().read(true).write(true).open(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A volume header over two blocks.
    fn volume() -> Vec<u8> {
        let mut bytes = vec![0xFF; 2 * BLOCK];
        bytes[..16].fill(0);
        let guid = [
            0x8D, 0x2B, 0xF1, 0xFF, 0x96, 0x76, 0x8B, 0x4C, 0xA9, 0x85, 0x27, 0x47, 0x07, 0x5B, 0x4F, 0x50,
        ];
        bytes[16..32].copy_from_slice(&guid);
        bytes[32..40].copy_from_slice(&(2 * BLOCK as u64).to_le_bytes());
        bytes[40..44].copy_from_slice(b"_FVH");
        bytes
    }

    fn store(template: Option<Vec<u8>>) -> VariableStore {
        VariableStore {
            gpa: 0xFFE0_0000,
            template,
        }
    }

    fn error(path: &Path, store: &VariableStore) -> String {
        format!("{:#}", open_inner(path, store).map(drop).unwrap_err())
    }

    #[test]
    fn missing_file_is_made_from_the_template_and_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vars");
        let store = store(Some(volume()));
        assert_eq!(open_inner(&path, &store).unwrap().len(), 2 * BLOCK as u64);
        assert_eq!(fs::read(&path).unwrap(), volume());
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        let mut changed = volume();
        changed[100] = 1;
        fs::write(&path, &changed).unwrap();
        open_inner(&path, &store).unwrap();
        assert_eq!(fs::read(&path).unwrap(), changed);
    }

    #[test]
    fn second_user_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vars");
        let store = store(Some(volume()));
        let _first = open_inner(&path, &store).unwrap();
        assert_eq!(
            error(&path, &store),
            "another vm uses this file; give each vm a file of its own"
        );
    }

    #[test]
    fn files_of_other_contents_or_lengths_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vars");
        fs::write(&path, b"hello").unwrap();
        assert!(error(&path, &store(None)).starts_with("this is not a variable store"));
        let mut long = volume();
        long.resize(3 * BLOCK, 0xFF);
        fs::write(&path, &long).unwrap();
        assert_eq!(
            error(&path, &store(None)),
            "the variable store says that it is 0x2000 bytes long, but the file has 0x3000"
        );
        fs::write(&path, volume()).unwrap();
        assert!(error(&path, &store(Some(long))).starts_with("the file has 0x2000 bytes"));
    }

    #[test]
    fn code_only_image_needs_a_file() {
        let reason = range(&store(None), None).unwrap_err().to_string();
        assert!(reason.contains("OVMF_VARS_4M.fd"), "{reason}");
        assert_eq!(range(&store(None), Some(0x1000)).unwrap().len, 0x1000);
    }
}
