// SPDX-License-Identifier: MIT
//! Model-specific registers that belong to the engine; the rest is the bus's.

use crate::bus::Bus;
use crate::core::{Core, FS, Flow, GS, Stop};
use x86defs::state::{FIXED_MTRR_MSRS, VARIABLE_MTRRS};
use x86defs::{cr0, efer, msr};

const KNOWN_EFER: u64 = efer::SCE | efer::LME | efer::LMA | efer::NXE;

impl Core {
    /// The value of an MSR that the engine owns.
    pub(crate) fn own_msr(&self, n: u32) -> Option<u64> {
        let m = &self.msrs;
        Some(match n {
            msr::SYSENTER_CS => m.sysenter.0,
            msr::SYSENTER_ESP => m.sysenter.1,
            msr::SYSENTER_EIP => m.sysenter.2,
            msr::MISC_ENABLE => m.misc_enable,
            msr::PAT => m.pat,
            msr::MTRR_CAP => 0x500 | VARIABLE_MTRRS as u64,
            msr::MTRR_DEF_TYPE => m.mtrr.def_type,
            msr::MTRR_PHYS_BASE0..=0x20F => {
                let (base, mask) = m.mtrr.variable[(n - msr::MTRR_PHYS_BASE0) as usize / 2];
                if n & 1 == 0 { base } else { mask }
            }
            msr::EFER => self.efer,
            msr::STAR => m.star,
            msr::LSTAR => m.lstar,
            msr::CSTAR => m.cstar,
            msr::SFMASK => m.sfmask,
            msr::FS_BASE => self.seg[FS].base,
            msr::GS_BASE => self.seg[GS].base,
            msr::KERNEL_GS_BASE => m.kernel_gs_base,
            msr::TSC_AUX => m.tsc_aux,
            msr::MCG_CAP | msr::MCG_STATUS | msr::BIOS_SIGN_ID => 0,
            _ => m.mtrr.fixed[FIXED_MTRR_MSRS.iter().position(|&f| f == n)?],
        })
    }

    pub(crate) fn read_msr(&mut self, bus: &mut dyn Bus, n: u32) -> Result<u64, Stop> {
        if let Some(v) = self.own_msr(n) {
            return Ok(v);
        }
        bus.at_instruction(self.now());
        if n == msr::TSC {
            return Ok(bus.tsc());
        }
        match bus.read_msr(n) {
            Ok(v) => Ok(v),
            Err(_) => {
                tracing::debug!(msr = format_args!("{n:#x}"), "unknown msr read: #gp");
                self.gp(0)
            }
        }
    }

    pub(crate) fn write_msr(&mut self, bus: &mut dyn Bus, n: u32, v: u64) -> Flow {
        let canonical = (v as i64) << 16 >> 16 == v as i64;
        let address = matches!(
            n,
            msr::LSTAR
                | msr::CSTAR
                | msr::FS_BASE
                | msr::GS_BASE
                | msr::KERNEL_GS_BASE
                | msr::SYSENTER_ESP
                | msr::SYSENTER_EIP
        );
        if address && !canonical {
            return self.gp(0);
        }
        let m = &mut self.msrs;
        match n {
            msr::SYSENTER_CS => m.sysenter.0 = v & 0xFFFF_FFFF,
            msr::SYSENTER_ESP => m.sysenter.1 = v,
            msr::SYSENTER_EIP => m.sysenter.2 = v,
            msr::MISC_ENABLE => m.misc_enable = v,
            msr::PAT => {
                let bad = v.to_le_bytes().iter().any(|&b| !matches!(b, 0 | 1 | 4..=7));
                if bad {
                    return self.gp(0);
                }
                m.pat = v;
            }
            msr::MTRR_CAP | msr::MCG_CAP => return self.gp(0),
            msr::MTRR_DEF_TYPE => m.mtrr.def_type = v & 0xCFF,
            msr::MTRR_PHYS_BASE0..=0x20F => {
                let pair = &mut m.mtrr.variable[(n - msr::MTRR_PHYS_BASE0) as usize / 2];
                let v = v & self.phys_mask;
                if n & 1 == 0 { pair.0 = v } else { pair.1 = v }
            }
            msr::EFER => return self.write_efer(v),
            msr::STAR => m.star = v,
            msr::LSTAR => m.lstar = v,
            msr::CSTAR => m.cstar = v,
            msr::SFMASK => m.sfmask = v & 0xFFFF_FFFF,
            msr::FS_BASE => self.set_base(FS, v),
            msr::GS_BASE => self.set_base(GS, v),
            msr::KERNEL_GS_BASE => m.kernel_gs_base = v,
            msr::TSC_AUX => m.tsc_aux = v & 0xFFFF_FFFF,
            msr::MCG_STATUS | msr::BIOS_SIGN_ID => {}
            _ => match FIXED_MTRR_MSRS.iter().position(|&f| f == n) {
                Some(i) => m.mtrr.fixed[i] = v,
                None => return self.bus_msr(bus, n, v),
            },
        }
        Ok(())
    }

    fn bus_msr(&mut self, bus: &mut dyn Bus, n: u32, v: u64) -> Flow {
        bus.at_instruction(self.now());
        if bus.write_msr(n, v).is_err() {
            tracing::debug!(msr = format_args!("{n:#x}"), "unknown msr write: #gp");
            return self.gp(0);
        }
        Ok(())
    }

    fn set_base(&mut self, i: usize, v: u64) {
        self.seg[i].base = v;
        self.seg_base[i] = v;
    }

    fn write_efer(&mut self, v: u64) -> Flow {
        let lme_under_paging = (self.efer ^ v) & efer::LME != 0 && self.cr0 & cr0::PG != 0;
        if v & !KNOWN_EFER != 0 || lme_under_paging {
            return self.gp(0);
        }
        let flush = (self.efer ^ v) & efer::NXE != 0;
        self.efer = v & !efer::LMA | self.efer & efer::LMA;
        self.update_mode();
        if flush {
            self.flush_tlb();
        }
        Ok(())
    }
}
