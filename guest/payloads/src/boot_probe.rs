// SPDX-License-Identifier: MIT
//! `boot_probe` as a kernel: bzImage and ELF with a PVH note.
//!
//! Always true: both hold the same image, linked at 1 MiB. The bzImage has a setup header of protocol
//! 2.15 with a 64-bit entry at +0x200 (Documentation/arch/x86/boot.rst); it cannot be moved and its
//! real-mode entry only says that it is not supported. `type=linux` takes the bzImage. Not here: loading.

/// ELF file with a PVH note; `e_entry` is the 64-bit entry.
pub const ELF: &[u8] = super::built!("boot_probe.elf");
/// The image, flat, with its zeroed data.
const IMAGE: &[u8] = super::built!("boot_probe.bin");
/// Real-mode code.
const SETUP: &[u8] = super::built!("boot_setup.bin");

/// Where the image is linked.
const IMAGE_GPA: u32 = 0x10_0000;
/// Sectors behind the boot sector; 4 is what 0 would mean.
const SETUP_SECTORS: usize = 4;
const SECTOR: usize = 512;
/// End of the setup header of protocol 2.15, and where the jump over it goes.
const HEADER_END: usize = 0x26C;
/// Text that the header's kernel version points to.
const VERSION: &[u8] = b"boot_probe of openvmm\0";
const VERSION_AT: usize = 0x700;

/// The kernel as a bzImage.
pub fn bz_image() -> Vec<u8> {
    let used = IMAGE
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    let code = &IMAGE[..used.next_multiple_of(16).min(IMAGE.len())];
    let start = (1 + SETUP_SECTORS) * SECTOR;
    let mut file = vec![0; start];
    setup_header(&mut file, code.len());
    put(&mut file, HEADER_END, &SETUP[..SECTOR]);
    put(&mut file, VERSION_AT, VERSION);
    file.extend_from_slice(code);
    file
}

fn setup_header(file: &mut [u8], code: usize) {
    const LOADED_HIGH: u8 = 1;
    const HAS_64_BIT_ENTRY: u16 = 1;
    const PAGE: u32 = 0x1000;
    file[0x1F1] = SETUP_SECTORS as u8;
    put(file, 0x1F4, &(code.div_ceil(16) as u32).to_le_bytes());
    put(file, 0x1FE, &[0x55, 0xAA]);
    // jmp over the header.
    put(file, 0x200, &[0xEB, (HEADER_END - 0x202) as u8]);
    put(file, 0x202, b"HdrS");
    put(file, 0x206, &0x020F_u16.to_le_bytes());
    put(file, 0x20E, &(VERSION_AT as u16 - 0x200).to_le_bytes());
    file[0x211] = LOADED_HIGH;
    put(file, 0x214, &IMAGE_GPA.to_le_bytes());
    // Highest byte of an initrd, kernel alignment.
    put(file, 0x22C, &0x7FFF_FFFF_u32.to_le_bytes());
    put(file, 0x230, &PAGE.to_le_bytes());
    file[0x235] = PAGE.trailing_zeros() as u8;
    put(file, 0x236, &HAS_64_BIT_ENTRY.to_le_bytes());
    put(file, 0x238, &2047_u32.to_le_bytes());
    put(file, 0x258, &u64::from(IMAGE_GPA).to_le_bytes());
    let init_size = (IMAGE.len() as u32).next_multiple_of(PAGE);
    put(file, 0x260, &init_size.to_le_bytes());
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    to[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(*bytes[at..].first_chunk().unwrap())
    }

    #[test]
    fn the_bzimage_header_leads_to_the_64_bit_entry() {
        let file = bz_image();
        assert_eq!(file[0x1FE..0x200], [0x55, 0xAA]);
        assert_eq!(&file[0x202..0x206], b"HdrS");
        assert_eq!(file[0x236] & 1, 1, "xloadflags has a 64-bit entry");
        let code = (usize::from(file[0x1F1]) + 1) * 512;
        // mov [rip + disp32], rax: the first instruction saves RAX.
        assert_eq!(file[code + 0x200..code + 0x203], [0x48, 0x89, 0x05]);
        assert_eq!(u32_at(&file, 0x1F4) as usize * 16, file.len() - code);
        let init_size = u32_at(&file, 0x260) as usize;
        assert!(init_size >= IMAGE.len() && init_size.is_multiple_of(4096));
    }

    #[test]
    fn the_jump_over_the_header_reaches_the_setup_code() {
        let file = bz_image();
        assert_eq!(file[0x200], 0xEB);
        let target = 0x202 + usize::from(file[0x201]);
        assert_eq!(target, HEADER_END);
        // cli, cld
        assert_eq!(file[target..target + 2], [0xFA, 0xFC]);
    }

    #[test]
    fn the_setup_code_and_the_version_text_do_not_meet() {
        const { assert!(HEADER_END + SECTOR <= VERSION_AT) };
        assert!(SETUP[SECTOR..].iter().all(|&b| b == 0x0F || b == 0x0B || b == 0));
    }

    /// The 32-bit entry that the PVH note names, and the program header it is in.
    #[test]
    fn the_elf_has_a_pvh_note_in_its_own_segment() {
        let count = usize::from(u16::from_le_bytes([ELF[0x38], ELF[0x39]]));
        let note = (0..count)
            .map(|index| 0x40 + index * 0x38)
            .find(|&header| u32_at(ELF, header) == 4)
            .expect("a PT_NOTE segment");
        assert_eq!(u32_at(ELF, note + 0x30), 4, "aligned to 4, or QEMU refuses it");
        let at = u32_at(ELF, note + 8) as usize;
        assert_eq!([0, 4, 8].map(|field| u32_at(ELF, at + field)), [4, 4, 18]);
        assert_eq!(&ELF[at + 12..at + 16], b"Xen\0");
        let entry = u32_at(ELF, at + 16);
        let image = IMAGE_GPA..IMAGE_GPA + IMAGE.len() as u32;
        assert!(image.contains(&entry), "{entry:#x}");
        // mov eax, cr4: the entry turns on paging.
        let offset = (entry - IMAGE_GPA) as usize;
        assert_eq!(IMAGE[offset..offset + 3], [0x0F, 0x20, 0xE0]);
    }
}
