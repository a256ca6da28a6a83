// SPDX-License-Identifier: MIT
//! Kernel, initial RAM disk and command line of a Linux image, found by its zero page (Linux,
//! Documentation/arch/x86/boot.rst and zero-page.rst).
//!
//! Always true: addresses stay; what the boot loader wrote into the zero page stays, apart from sizes and
//! the new kernel's own header. Not here: building such an image (`build`).

use super::pages::{bytes_of, exchange, overwrite, pages_in, set_area};
use super::{headers, refuse};
use crate::failure::Failure;
use launch_plan::{Isolation, LaunchPlan, ParameterKind};
use vm_loaders::igvm::{Edit, File, Header};
use x86defs::state::gpr;

/// Offsets in the zero page, and in a bzImage for its own header.
mod offset {
    pub(super) const SETUP_SECTS: usize = 0x1F1;
    pub(super) const SYSSIZE: usize = 0x1F4;
    pub(super) const VID_MODE: usize = 0x1FA;
    pub(super) const JUMP: usize = 0x200;
    pub(super) const MAGIC: usize = 0x202;
    pub(super) const VERSION: usize = 0x206;
    pub(super) const TYPE_OF_LOADER: usize = 0x210;
    pub(super) const RAMDISK_IMAGE: usize = 0x218;
    pub(super) const RAMDISK_SIZE: usize = 0x21C;
    pub(super) const CMD_LINE_PTR: usize = 0x228;
    pub(super) const KERNEL_ALIGNMENT: usize = 0x230;
    pub(super) const RELOCATABLE: usize = 0x234;
    pub(super) const XLOADFLAGS: usize = 0x236;
    pub(super) const PREF_ADDRESS: usize = 0x258;
    pub(super) const INIT_SIZE: usize = 0x260;
    /// The header may not grow beyond this.
    pub(super) const LIMIT: usize = 0x290;
}

/// Distance of the 64-bit entry from the start of the kernel.
const ENTRY_64: u64 = 0x200;

/// The Linux image of a file: its zero page and where the kernel lies.
struct Image {
    zero_page_gpa: u64,
    zero_page: Vec<u8>,
    kernel: u64,
}

impl Image {
    fn of(file: &File<'_>) -> Result<Self, Failure> {
        let none = || refuse("the file is no Linux image: no platform has a zero page in rsi");
        for isolation in [Isolation::Native, Isolation::Vsm] {
            let Ok(plan) = file.plan(isolation) else { continue };
            if let Some(image) = Self::of_plan(file, &plan) {
                return Ok(image);
            }
        }
        Err(none())
    }

    fn of_plan(file: &File<'_>, plan: &LaunchPlan<'_>) -> Option<Self> {
        let (context, _) = plan.vp_contexts().find(|(context, _)| context.vp == 0)?;
        let state = context.state.to_x86()?;
        let zero_page_gpa = state.gpr[gpr::RSI];
        let pages = pages_in(file, &(zero_page_gpa..zero_page_gpa.checked_add(1)?));
        let zero_page = bytes_of(file, &pages.first()?.1).to_vec();
        let magic = zero_page.get(offset::MAGIC..offset::MAGIC + 4)?;
        let kernel = if state.is_64bit() {
            state.rip.checked_sub(ENTRY_64)?
        } else {
            state.rip
        };
        (magic == b"HdrS").then_some(Self {
            zero_page_gpa,
            zero_page,
            kernel,
        })
    }

    fn u32(&self, at: usize) -> u64 {
        u32_at(&self.zero_page, at)
    }

    fn put(&mut self, at: usize, value: u32) {
        self.zero_page[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
    field.map_or(0, u32::from_le_bytes).into()
}

/// Makes the changes that are asked for.
pub(super) fn replace(
    edit: &mut Edit<'_>,
    kernel: Option<&[u8]>,
    initrd: Option<&[u8]>,
    cmdline: Option<&str>,
) -> Result<(), Failure> {
    let file = edit.file().clone();
    let mut rest = cmdline;
    if let Some(text) = cmdline
        && parameter(edit, &file, text)?
    {
        rest = None;
    }
    if kernel.is_none() && initrd.is_none() && rest.is_none() {
        return Ok(());
    }
    let mut image = Image::of(&file)?;
    if let Some(bytes) = kernel {
        set_kernel(edit, &mut image, bytes)?;
    }
    if let Some(bytes) = initrd {
        set_initrd(edit, &mut image, bytes)?;
    }
    if let Some(text) = rest {
        set_command_line(edit, &image, text)?;
    }
    if kernel.is_some() || initrd.is_some() {
        overwrite(edit, "zero page", image.zero_page_gpa, &image.zero_page)?;
    }
    Ok(())
}

/// A command line that is a parameter: its area's initial data. False when the file has no such parameter.
fn parameter(edit: &mut Edit<'_>, file: &File<'_>, text: &str) -> Result<bool, Failure> {
    let slot = headers(file).find_map(|(_, header)| match header {
        Header::Parameter(ParameterKind::CommandLine, h) => Some(h),
        _ => None,
    });
    let Some(slot) = slot else { return Ok(false) };
    let area = headers(file).find_map(|(_, header)| match header {
        Header::ParameterArea(h) if h.parameter_area_index == slot.parameter_area_index => Some(h),
        _ => None,
    });
    let Some(area) = area else { return Ok(false) };
    let old = match area.file_offset {
        0 => &[][..],
        offset => file.data(offset, area.number_of_bytes).unwrap_or(&[]),
    };
    let at = slot.byte_offset as usize;
    let next = headers(file).filter_map(|(_, header)| match header {
        Header::Parameter(_, h) if h.parameter_area_index == slot.parameter_area_index => {
            Some(h.byte_offset as usize)
        }
        _ => None,
    });
    let end = next
        .filter(|&other| other > at)
        .min()
        .map_or(area.number_of_bytes, |end| end as u64);
    let room = (end as usize).saturating_sub(at);
    if text.len() >= room || text.contains('\0') {
        return Err(refuse(format!(
            "--cmdline: there is room for {} bytes and no NUL",
            room.saturating_sub(1)
        )));
    }
    let mut bytes = old.to_vec();
    bytes.resize(bytes.len().max(at + room), 0);
    bytes[at..at + room].fill(0);
    bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
    set_area(edit, slot.parameter_area_index, &bytes)?;
    Ok(true)
}

fn set_kernel(edit: &mut Edit<'_>, image: &mut Image, bytes: &[u8]) -> Result<(), Failure> {
    let wrong = |reason: &str| refuse(format!("--kernel: {reason}"));
    let version = u32_at(bytes, offset::VERSION) & 0xFFFF;
    if bytes.get(offset::MAGIC..offset::MAGIC + 4) != Some(b"HdrS") || version < 0x20C {
        return Err(wrong("not a bzImage of boot protocol 2.12 or later"));
    }
    let sectors = match bytes[offset::SETUP_SECTS] {
        0 => 4,
        count => usize::from(count),
    };
    let code = bytes.get((sectors + 1) * 512..).filter(|code| !code.is_empty());
    let code = code.ok_or_else(|| wrong("the file is cut off"))?;
    if bytes[offset::XLOADFLAGS] & 1 == 0 {
        return Err(wrong("it has no 64-bit entry point"));
    }
    let preferred = u32_at(bytes, offset::PREF_ADDRESS) | u32_at(bytes, offset::PREF_ADDRESS + 4) << 32;
    let alignment = u32_at(bytes, offset::KERNEL_ALIGNMENT).max(1);
    if preferred != image.kernel
        && (bytes[offset::RELOCATABLE] == 0 || !image.kernel.is_multiple_of(alignment))
    {
        return Err(refuse(format!(
            "--kernel: it must lie at {preferred:#x}, the file's kernel lies at {:#x}; build the file anew",
            image.kernel
        )));
    }
    let old_len = (image.u32(offset::SYSSIZE) * 16).max(1).next_multiple_of(4096);
    let needs = image.kernel
        ..image
            .kernel
            .saturating_add(u32_at(bytes, offset::INIT_SIZE).max(code.len() as u64));
    let old = image.kernel..image.kernel.saturating_add(old_len);
    let file = edit.file().clone();
    let in_the_way = pages_in(&file, &needs)
        .into_iter()
        .find(|(_, page)| !old.contains(&page.gpa));
    if let Some((_, page)) = in_the_way {
        return Err(refuse(format!(
            "--kernel: it uses {:#x}..{:#x} while it starts, where the file has a page at {:#x}; build the file anew",
            needs.start, needs.end, page.gpa
        )));
    }
    exchange(edit, "--kernel", &old, code)?;
    let header_end = (0x202 + usize::from(bytes[offset::JUMP + 1])).clamp(offset::JUMP, offset::LIMIT);
    let kept = [
        (offset::VID_MODE, 2),
        (offset::TYPE_OF_LOADER, 1),
        (offset::RAMDISK_IMAGE, 8),
        (offset::CMD_LINE_PTR, 4),
    ];
    let before = image.zero_page.clone();
    image.zero_page[offset::SETUP_SECTS..offset::LIMIT].fill(0);
    image.zero_page[offset::SETUP_SECTS..header_end].copy_from_slice(&bytes[offset::SETUP_SECTS..header_end]);
    for (at, len) in kept {
        image.zero_page[at..at + len].copy_from_slice(&before[at..at + len]);
    }
    Ok(())
}

fn set_initrd(edit: &mut Edit<'_>, image: &mut Image, bytes: &[u8]) -> Result<(), Failure> {
    let (base, len) = (image.u32(offset::RAMDISK_IMAGE), image.u32(offset::RAMDISK_SIZE));
    if base == 0 || len == 0 {
        return Err(refuse(
            "--initrd: the file has no initrd to replace; build the file anew",
        ));
    }
    let size = u32::try_from(bytes.len()).ok().filter(|&size| size > 0);
    let size = size.ok_or_else(|| refuse("--initrd: the file is empty or too large"))?;
    let old = base..base + len.next_multiple_of(4096);
    exchange(edit, "--initrd", &old, bytes)?;
    image.put(offset::RAMDISK_SIZE, size);
    Ok(())
}

fn set_command_line(edit: &mut Edit<'_>, image: &Image, text: &str) -> Result<(), Failure> {
    let gpa = image.u32(offset::CMD_LINE_PTR);
    let page = gpa & !0xFFF;
    let file = edit.file().clone();
    let old = pages_in(&file, &(page..page + 1));
    let Some((_, header)) = old.first() else {
        return Err(refuse("--cmdline: the file has no command line to replace"));
    };
    let mut bytes = bytes_of(&file, header).to_vec();
    bytes.resize(4096, 0);
    let at = (gpa - page) as usize;
    let old_end = bytes[at..]
        .iter()
        .position(|&byte| byte == 0)
        .map_or(4096, |len| at + len);
    let room = bytes[old_end..].iter().take_while(|&&byte| byte == 0).count() + (old_end - at);
    if text.len() >= room || text.contains('\0') {
        return Err(refuse(format!(
            "--cmdline: there is room for {} bytes and no NUL",
            room.saturating_sub(1)
        )));
    }
    bytes[at..at + room].fill(0);
    bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
    overwrite(edit, "--cmdline", page, &bytes)
}
