// SPDX-License-Identifier: MIT
//! System instructions: ports, CPUID, MSRs, control and debug registers, SYSCALL and friends.

use crate::bus::Bus;
use crate::core::{Core, FS, Flow, GS, RIP, Stop, Why};
use crate::uop::Uop;
use x86defs::{cr0, cr4, efer, rflags};

/// Unimplemented instructions reported per processor.
const MAX_REPORTS: u32 = 50;

/// An instruction of more than 15 bytes (APM3 section 1.1).
pub(crate) fn too_long(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    c.gp(0)
}

/// An instruction that does not exist here: bytes in `imm` and `disp`.
pub(crate) fn undefined(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&u.imm.to_le_bytes());
    bytes[8..].copy_from_slice(&u.disp.to_le_bytes());
    let known = bytes[0] == 0x0F && matches!(bytes[1], 0x0B | 0xB9 | 0xFF);
    if !known && c.reported < MAX_REPORTS {
        c.reported += 1;
        let rip = c.gpr[RIP].wrapping_add(u.at.into());
        let n = usize::from(u.len).clamp(1, 12);
        tracing::warn!(
            rip = format_args!("{rip:#x}"),
            bytes = format_args!("{:02x?}", &bytes[..n]),
            cpl = c.cpl,
            "instruction is not implemented: #UD"
        );
    }
    c.ud()
}
/// UD2 and instructions that raise #UD silently because they are not advertised.
pub(crate) fn ud2(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    c.ud()
}
/// A debugger's breakpoint.
pub(crate) fn breakpoint(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    c.why = Why::Breakpoint;
    Err(Stop)
}

impl Core {
    /// Reads a port; rights are checked.
    pub(crate) fn port_read(&mut self, bus: &mut dyn Bus, port: u16, size: u8) -> u32 {
        bus.at_instruction(self.now());
        self.watch_port(port, size);
        let v = bus.port_in(port, size);
        let rip = self.gpr[RIP];
        if let Some(t) = &mut self.tracer {
            t.port(port, size, false, v, rip);
        }
        v
    }
    /// Writes a port; rights are checked.
    pub(crate) fn port_write(&mut self, bus: &mut dyn Bus, port: u16, size: u8, v: u32) {
        bus.at_instruction(self.now());
        self.watch_port(port, size);
        bus.port_out(port, size, v);
        let rip = self.gpr[RIP];
        if let Some(t) = &mut self.tracer {
            t.port(port, size, true, v, rip);
        }
    }
}

fn port(c: &Core, u: &Uop) -> u16 {
    if u.aux != 0 {
        c.gpr[2] as u16
    } else {
        u.imm as u16 & 0xFF
    }
}
/// IN: port in `imm`, or (`aux` 1) DX.
pub(crate) fn port_in(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.cur_idx = u.idx;
    let p = port(c, u);
    c.check_port(bus, p, u.size)?;
    let v = c.port_read(bus, p, u.size);
    c.set_reg(0, u.size, v.into());
    Ok(())
}
/// OUT.
pub(crate) fn port_out(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.cur_idx = u.idx;
    let p = port(c, u);
    c.check_port(bus, p, u.size)?;
    let v = c.reg(0, u.size) as u32;
    c.port_write(bus, p, u.size, v);
    Ok(())
}

/// CPUID.
pub(crate) fn cpuid(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let (leaf, subleaf) = (c.gpr[0] as u32, c.gpr[1] as u32);
    let e = x86defs::cpuid::find(&c.cpuid, leaf, subleaf)
        .copied()
        .unwrap_or_default();
    let mut ecx = e.ecx;
    if leaf == 1 && c.cr4 & cr4::OSXSAVE != 0 {
        ecx |= 1 << 27;
    }
    for (r, v) in [(0, e.eax), (3, e.ebx), (1, ecx), (2, e.edx)] {
        c.gpr[r] = v.into();
    }
    Ok(())
}

fn set_edx_eax(c: &mut Core, v: u64) {
    c.gpr[0] = v & 0xFFFF_FFFF;
    c.gpr[2] = v >> 32;
}
/// RDTSC and (`aux` 1) RDTSCP.
pub(crate) fn rdtsc(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    if c.cr4 & cr4::TSD != 0 && c.cpl != 0 {
        return c.gp(0);
    }
    c.cur_idx = u.idx;
    bus.at_instruction(c.now());
    set_edx_eax(c, bus.tsc());
    if u.aux != 0 {
        c.gpr[1] = c.msrs.tsc_aux & 0xFFFF_FFFF;
    }
    Ok(())
}
/// RDPMC: counters read zero.
pub(crate) fn rdpmc(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    if c.cpl != 0 && c.cr4 & cr4::PCE == 0 {
        return c.gp(0);
    }
    set_edx_eax(c, 0);
    Ok(())
}
/// RDMSR.
pub(crate) fn rdmsr(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.need_cpl0()?;
    c.cur_idx = u.idx;
    let v = c.read_msr(bus, c.gpr[1] as u32)?;
    set_edx_eax(c, v);
    Ok(())
}
/// WRMSR.
pub(crate) fn wrmsr(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.need_cpl0()?;
    c.cur_idx = u.idx;
    let v = c.gpr[2] << 32 | c.gpr[0] & 0xFFFF_FFFF;
    c.write_msr(bus, c.gpr[1] as u32, v)
}

/// MOV from control register `aux`.
pub(crate) fn read_cr(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.need_cpl0()?;
    let v = match u.aux {
        0 => c.cr0,
        2 => c.cr2,
        3 => c.cr3,
        4 => c.cr4,
        8 => {
            c.cur_idx = u.idx;
            bus.at_instruction(c.now());
            bus.cr8()
        }
        _ => return c.ud(),
    };
    c.set_reg(u.dst, u.size, v);
    Ok(())
}
/// MOV to control register `aux`.
pub(crate) fn write_cr(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.need_cpl0()?;
    let v = c.reg(u.src, u.size);
    match u.aux {
        0 => c.set_cr0(v),
        2 => {
            c.cr2 = v;
            Ok(())
        }
        3 => {
            // Bit 63 (keep PCID entries) is not an address bit.
            let v = v & !(1 << 63);
            if c.is_long() && v & !c.phys_mask != 0 {
                return c.gp(0);
            }
            c.cr3 = v;
            c.flush_tlb();
            Ok(())
        }
        4 => c.set_cr4(v),
        8 => {
            if v > 15 {
                return c.gp(0);
            }
            c.cur_idx = u.idx;
            bus.at_instruction(c.now());
            bus.set_cr8(v);
            c.irq_hint = true;
            c.recheck = true;
            Ok(())
        }
        _ => c.ud(),
    }
}

impl Core {
    pub(crate) fn set_cr0(&mut self, v: u64) -> Flow {
        let known = 0xE005_003F;
        let pg_without_pe = v & cr0::PG != 0 && v & cr0::PE == 0;
        let nw_without_cd = v & cr0::NW != 0 && v & cr0::CD == 0;
        if v >> 32 != 0 || pg_without_pe || nw_without_cd {
            return self.gp(0);
        }
        let v = v & known | cr0::ET;
        let paging = (self.cr0 ^ v) & cr0::PG != 0;
        if paging && v & cr0::PG != 0 && self.efer & efer::LME != 0 {
            let cs_long = self.seg[crate::core::CS]
                .attributes
                .has(x86defs::SegmentAttributes::L);
            if self.cr4 & cr4::PAE == 0 || cs_long {
                return self.gp(0);
            }
            self.efer |= efer::LMA;
        }
        if paging && v & cr0::PG == 0 {
            if self.is_code64() {
                return self.gp(0);
            }
            self.efer &= !efer::LMA;
        }
        let flush = (self.cr0 ^ v) & (cr0::PG | cr0::WP | cr0::PE) != 0;
        let mode = (self.cr0 ^ v) & cr0::PE != 0;
        self.cr0 = v;
        self.update_mode();
        if flush {
            self.flush_tlb();
        }
        if mode {
            (0..6).for_each(|i| self.update_segment(i));
        }
        Ok(())
    }

    pub(crate) fn set_cr4(&mut self, v: u64) -> Flow {
        let mut known = cr4::DE | cr4::PSE | cr4::PAE | cr4::MCE | cr4::PGE | cr4::PCE;
        known |= cr4::TSD | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::UMIP | cr4::FSGSBASE | cr4::SMEP | cr4::SMAP;
        if self.has_xsave() {
            known |= cr4::OSXSAVE;
        }
        let lost_pae = self.is_long() && v & cr4::PAE == 0;
        if v & !known != 0 || lost_pae {
            return self.gp(0);
        }
        let flush = (self.cr4 ^ v) & (cr4::PAE | cr4::PSE | cr4::PGE | cr4::SMEP | cr4::SMAP) != 0;
        let ports = (self.cr4 ^ v) & cr4::DE != 0;
        self.cr4 = v;
        self.update_mode();
        if ports {
            self.update_watch();
        }
        if flush {
            self.flush_tlb();
        }
        Ok(())
    }
}

/// CLTS.
pub(crate) fn clts(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    c.need_cpl0()?;
    c.cr0 &= !cr0::TS;
    c.update_mode();
    Ok(())
}
impl Core {
    /// Whether CPUID says that there is XSAVE.
    fn has_xsave(&self) -> bool {
        x86defs::cpuid::find(&self.cpuid, 1, 0).is_some_and(|leaf| leaf.ecx & 1 << 26 != 0)
    }
}

/// LMSW.
pub(crate) fn lmsw(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.need_cpl0()?;
    let v = c.rm(u, bus)?;
    // PE can be set, not cleared.
    let v = c.cr0 & !0xE | v & 0xF;
    c.set_cr0(v)
}
/// SMSW.
pub(crate) fn smsw(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    c.check_umip()?;
    c.set_rm(u, bus, c.cr0)
}

/// Index in [`Core::dr`] of debug register `n`.
fn debug_register(c: &mut Core, n: u8) -> Result<usize, Stop> {
    let aliased = matches!(n, 4 | 5);
    if aliased && c.cr4 & cr4::DE != 0 || n > 7 {
        return c.ud();
    }
    Ok(match n {
        0..=3 => usize::from(n),
        4 | 6 => 4,
        _ => 5,
    })
}
/// MOV from debug register `aux`.
pub(crate) fn read_dr(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    c.need_cpl0()?;
    let n = debug_register(c, u.aux)?;
    c.check_general_detect()?;
    let v = c.dr[n];
    c.set_reg(u.dst, u.size, v);
    Ok(())
}
/// MOV to debug register `aux`.
pub(crate) fn write_dr(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    c.need_cpl0()?;
    let n = debug_register(c, u.aux)?;
    c.check_general_detect()?;
    let v = c.reg(u.src, u.size);
    if n >= 4 && v >> 32 != 0 {
        return c.gp(0);
    }
    c.dr[n] = match n {
        4 => v & 0xE00F | 0xFFFF_0FF0,
        5 => v & 0xFFFF_2BFF | 0x400,
        _ => v,
    };
    c.update_watch();
    Ok(())
}

/// INVLPG.
pub(crate) fn invlpg(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    c.need_cpl0()?;
    let la = (c.offset(u) & u.address_mask()).wrapping_add(c.seg_base[usize::from(u.seg & 7)]) & c.lin_mask;
    c.tlb.flush_page(la);
    c.new_epoch();
    Ok(())
}
/// INVD and WBINVD.
pub(crate) fn wbinvd(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    c.need_cpl0()
}
/// SYSCALL.
pub(crate) fn syscall(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    let next = c.gpr[RIP].wrapping_add(u.next());
    c.syscall(next)
}
/// SYSRET.
pub(crate) fn sysret(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    c.sysret(u.size)
}
/// SYSENTER.
pub(crate) fn sysenter(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    c.sysenter()
}
/// SYSEXIT.
pub(crate) fn sysexit(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    c.sysexit(u.size)
}
/// SWAPGS.
pub(crate) fn swapgs(c: &mut Core, _u: &Uop, _bus: &mut dyn Bus) -> Flow {
    c.need_cpl0()?;
    std::mem::swap(&mut c.seg[GS].base, &mut c.msrs.kernel_gs_base);
    c.seg_base[GS] = c.seg[GS].base;
    Ok(())
}
/// RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE: `aux` bit 0 GS, bit 1 write.
pub(crate) fn fs_gs_base(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    if c.cr4 & cr4::FSGSBASE == 0 {
        return c.ud();
    }
    let i = if u.aux & 1 != 0 { GS } else { FS };
    if u.aux & 2 == 0 {
        let v = c.seg[i].base;
        c.set_reg(u.dst, u.size, v);
        return Ok(());
    }
    let v = c.reg(u.dst, u.size);
    if (v as i64) << 16 >> 16 != v as i64 {
        return c.gp(0);
    }
    c.seg[i].base = v;
    c.seg_base[i] = v;
    Ok(())
}
/// CLAC and STAC: `aux` 0 and 1.
pub(crate) fn set_ac(c: &mut Core, u: &Uop, _bus: &mut dyn Bus) -> Flow {
    if c.cpl != 0 {
        return c.ud();
    }
    c.sys = c.sys & !rflags::AC | if u.aux != 0 { rflags::AC } else { 0 };
    c.update_mode();
    Ok(())
}
/// VMCALL and VMMCALL.
pub(crate) fn hypercall(c: &mut Core, u: &Uop, bus: &mut dyn Bus) -> Flow {
    if c.cpl != 0 {
        return c.ud();
    }
    c.cur_idx = u.idx;
    bus.at_instruction(c.now());
    let mut gpr = [0; 16];
    gpr.copy_from_slice(&c.gpr[..16]);
    if !bus.hypercall(&mut gpr) {
        return c.ud();
    }
    c.gpr[..16].copy_from_slice(&gpr);
    Ok(())
}
