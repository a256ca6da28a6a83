// SPDX-License-Identifier: MIT
//! Files put together header by header, right or wrong as a test wants them.

use igvm_defs::*;
use launch_plan::ParameterKind;
use vm_loaders::igvm::{FixedHeader, FormatVersion, Header};
use zerocopy::IntoBytes;

/// A file in the making.
pub(crate) struct Raw {
    pub(crate) fixed: FixedHeader,
    headers: Vec<(u32, Vec<u8>)>,
    /// (header, field, data): the field gets the data's file offset.
    data: Vec<(usize, usize, Vec<u8>)>,
}

impl Raw {
    /// A version 1 file without headers.
    pub(crate) fn empty() -> Self {
        let fixed = FixedHeader {
            version: FormatVersion::V1,
            variable_header_offset: 24,
            variable_header_size: 0,
            total_file_size: 0,
            checksum: 0,
            architecture: 0,
            page_size: 4096,
        };
        Self {
            fixed,
            headers: Vec::new(),
            data: Vec::new(),
        }
    }

    /// A version 1 file for one platform with mask 1.
    pub(crate) fn of(platform: IgvmPlatformType) -> Self {
        let mut raw = Self::empty();
        raw.platform(platform, 1, 0);
        raw
    }

    /// A version 2 file for AArch64 with one platform.
    pub(crate) fn aarch64(platform: IgvmPlatformType) -> Self {
        let mut raw = Self::empty();
        raw.fixed.version = FormatVersion::V2;
        raw.fixed.variable_header_offset = 32;
        raw.fixed.architecture = 1;
        raw.platform(platform, 1, 0);
        raw
    }

    pub(crate) fn bytes(&mut self, typ: u32, content: &[u8]) -> &mut Self {
        self.headers.push((typ, content.to_vec()));
        self
    }

    pub(crate) fn add(&mut self, header: Header<'_>) -> &mut Self {
        self.bytes(header.typ(), header.content())
    }

    /// Adds a header that refers to `data`.
    pub(crate) fn with_data(&mut self, header: Header<'_>, data: &[u8]) -> &mut Self {
        let field = if matches!(header, Header::CorimDocument(_) | Header::CorimSignature(_)) {
            4
        } else {
            12
        };
        self.data.push((self.headers.len(), field, data.to_vec()));
        self.add(header)
    }

    pub(crate) fn platform(
        &mut self,
        platform_type: IgvmPlatformType,
        mask: u32,
        highest_vtl: u8,
    ) -> &mut Self {
        self.add(Header::SupportedPlatform(supported_platform(
            platform_type,
            mask,
            highest_vtl,
        )))
    }

    pub(crate) fn policy(&mut self, policy: u64, compatibility_mask: u32) -> &mut Self {
        self.add(Header::GuestPolicy(IGVM_VHS_GUEST_POLICY {
            policy,
            compatibility_mask,
            reserved: 0,
        }))
    }

    pub(crate) fn page(&mut self, gpa: u64) -> &mut Self {
        self.with_data(Header::PageData(page_data(gpa)), &[0xA5; 4096])
    }

    pub(crate) fn area(&mut self, parameter_area_index: u32, number_of_bytes: u64) -> &mut Self {
        let area = IGVM_VHS_PARAMETER_AREA {
            number_of_bytes,
            parameter_area_index,
            file_offset: 0,
        };
        self.add(Header::ParameterArea(area))
    }

    pub(crate) fn parameter(&mut self, kind: ParameterKind, area: u32, byte_offset: u32) -> &mut Self {
        let parameter = IGVM_VHS_PARAMETER {
            parameter_area_index: area,
            byte_offset,
        };
        self.add(Header::Parameter(kind, parameter))
    }

    pub(crate) fn insert(&mut self, gpa: u64, parameter_area_index: u32) -> &mut Self {
        let compatibility_mask = 1;
        let insert = IGVM_VHS_PARAMETER_INSERT {
            gpa,
            compatibility_mask,
            parameter_area_index,
        };
        self.add(Header::ParameterInsert(insert))
    }

    pub(crate) fn context(&mut self, vp_index: u16, gpa: u64, payload: &[u8]) -> &mut Self {
        self.with_data(Header::VpContext(vp_context(vp_index, gpa)), payload)
    }

    /// The file, with right sizes and checksum and eight bytes of data if there would be none.
    pub(crate) fn build(&self) -> Vec<u8> {
        self.build_with(|_| {})
    }

    /// The file; `change` may still change the fixed header before it is written.
    pub(crate) fn build_with(&self, change: impl FnOnce(&mut FixedHeader)) -> Vec<u8> {
        let mut variable = Vec::new();
        let mut starts = Vec::new();
        for (typ, content) in &self.headers {
            starts.push(variable.len());
            variable.extend_from_slice(&typ.to_le_bytes());
            variable.extend_from_slice(&(content.len() as u32).to_le_bytes());
            variable.extend_from_slice(content);
            variable.resize(variable.len().next_multiple_of(8), 0);
        }
        let mut fixed = self.fixed;
        let data_start = fixed.variable_header_offset as usize + variable.len();
        let mut data = Vec::new();
        for (header, field, bytes) in &self.data {
            let at = starts[*header] + 8 + field;
            variable[at..at + 4].copy_from_slice(&((data_start + data.len()) as u32).to_le_bytes());
            data.extend_from_slice(bytes);
        }
        if data.is_empty() {
            data.resize(8, 0);
        }
        fixed.variable_header_size = variable.len() as u32;
        fixed.total_file_size = (data_start + data.len()) as u32;
        fixed.checksum = fixed.compute_checksum(&variable);
        change(&mut fixed);
        let mut file = fixed.to_bytes();
        file.resize(
            fixed
                .variable_header_offset
                .max(self.fixed.variable_header_offset) as usize,
            0,
        );
        file.truncate(self.fixed.variable_header_offset as usize);
        file.extend_from_slice(&variable);
        file.extend_from_slice(&data);
        file
    }
}

pub(crate) fn supported_platform(
    platform_type: IgvmPlatformType,
    compatibility_mask: u32,
    highest_vtl: u8,
) -> IGVM_VHS_SUPPORTED_PLATFORM {
    IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask,
        highest_vtl,
        platform_type,
        platform_version: 1,
        shared_gpa_boundary: 0,
    }
}

pub(crate) fn page_data(gpa: u64) -> IGVM_VHS_PAGE_DATA {
    IGVM_VHS_PAGE_DATA {
        gpa,
        compatibility_mask: 1,
        file_offset: 0,
        flags: IgvmPageDataFlags::new(),
        data_type: IgvmPageDataType::NORMAL,
        reserved: 0,
    }
}

pub(crate) fn vp_context(vp_index: u16, gpa: u64) -> IGVM_VHS_VP_CONTEXT {
    IGVM_VHS_VP_CONTEXT {
        gpa: gpa.into(),
        compatibility_mask: 1,
        file_offset: 0,
        vp_index,
        reserved: 0,
    }
}

/// A VBS list of 64-bit registers, as (number, value).
pub(crate) fn vbs_list(vtl: u8, registers: &[(u32, u64)]) -> Vec<u8> {
    let mut bytes = (registers.len() as u32).to_le_bytes().to_vec();
    for &(number, value) in registers {
        let raw = VbsVpContextRegister {
            vtl,
            register_name: number.into(),
            mbz: [0; 11],
            register_value: u128::from(value).to_le_bytes(),
        };
        bytes.extend_from_slice(raw.as_bytes());
    }
    bytes
}

/// Register numbers of VBS lists.
pub(crate) const RIP: u32 = 0x20010;
pub(crate) const CR0: u32 = 0x40000;

/// A native context page that starts in real mode at the reset vector.
pub(crate) fn native_page() -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[128..136].copy_from_slice(&0xFFF0u64.to_le_bytes());
    // Code: selector, attributes, base, limit; data: attributes, limit.
    bytes[168..170].copy_from_slice(&0xF000u16.to_le_bytes());
    bytes[170..172].copy_from_slice(&0x9Bu16.to_le_bytes());
    bytes[172..176].copy_from_slice(&0xFFFF_0000u32.to_le_bytes());
    bytes[176..180].copy_from_slice(&0xFFFFu32.to_le_bytes());
    bytes[182..184].copy_from_slice(&0x93u16.to_le_bytes());
    bytes[188..192].copy_from_slice(&0xFFFFu32.to_le_bytes());
    bytes
}
