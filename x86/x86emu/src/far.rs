// SPDX-License-Identifier: MIT
//! Far transfers: JMP, CALL, RET, IRET to other segments and privilege levels, SYSCALL and SYSENTER
//! (APM2 sections 4.9 to 4.11 and 6.1).
//!
//! Always true: a transfer that faults changes no register. Not here: task switches (logged, #GP).

use crate::bus::Bus;
use crate::core::{CS, Core, DS, ES, FS, Flow, GS, RIP, SS, Stop};
use crate::segment::{Descriptor, null_stack, selector_error};
use crate::walk::is_canonical;
use x86defs::{SegmentAttributes as A, SegmentRegister, efer, rflags, vector};

impl Core {
    /// A code segment for a direct far jump or call.
    fn direct_code(
        &mut self,
        bus: &mut dyn Bus,
        d: &Descriptor,
        selector: u16,
    ) -> Result<SegmentRegister, Stop> {
        let rpl = (selector & 3) as u8;
        let allowed = match d.is_conforming() {
            true => d.dpl() <= self.cpl,
            false => d.dpl() == self.cpl && rpl <= self.cpl,
        };
        let both = self.is_long() && d.attributes().has(A::L) && d.attributes().has(A::DB);
        if !d.is_code() || !allowed || both {
            return self.gp(selector_error(selector));
        }
        if !d.is_present() {
            return self.fault(vector::NP, selector_error(selector));
        }
        self.mark_accessed(bus, d)?;
        Ok(d.register(selector & !3 | u16::from(self.cpl)))
    }

    /// Refuses an offset outside a code segment.
    fn check_code_offset(&mut self, cs: &SegmentRegister, offset: u64) -> Flow {
        let long = self.is_long() && cs.attributes.has(A::L);
        let bad = match long {
            true => (offset as i64) << 16 >> 16 != offset as i64,
            false => offset > u64::from(cs.limit),
        };
        if bad { self.gp(0) } else { Ok(()) }
    }

    /// JMP far.
    pub(crate) fn far_jump(&mut self, bus: &mut dyn Bus, selector: u16, offset: u64) -> Flow {
        if self.is_real_like() {
            let cs = self.real_segment(CS, selector);
            self.set_segment(CS, cs);
            self.gpr[RIP] = offset & 0xFFFF_FFFF;
            return Ok(());
        }
        if selector & !3 == 0 {
            return self.gp(0);
        }
        let d = self.descriptor(bus, selector, vector::GP)?;
        let (cs, offset) = if d.is_segment() {
            (self.direct_code(bus, &d, selector)?, offset)
        } else {
            self.jump_gate(bus, &d, selector)?
        };
        self.check_code_offset(&cs, offset)?;
        self.set_segment(CS, cs);
        self.gpr[RIP] = offset;
        Ok(())
    }

    fn jump_gate(
        &mut self,
        bus: &mut dyn Bus,
        d: &Descriptor,
        selector: u16,
    ) -> Result<(SegmentRegister, u64), Stop> {
        self.check_call_gate(d, selector)?;
        let target = d.gate_selector();
        let t = self.descriptor(bus, target, vector::GP)?;
        let allowed = if t.is_conforming() {
            t.dpl() <= self.cpl
        } else {
            t.dpl() == self.cpl
        };
        if !t.is_code() || !allowed || self.is_not_for_gates(&t) {
            return self.gp(selector_error(target));
        }
        if !t.is_present() {
            return self.fault(vector::NP, selector_error(target));
        }
        Ok((t.register(target & !3 | u16::from(self.cpl)), gate_offset(d)))
    }

    /// In long mode a gate leads to 64-bit code only.
    fn is_not_for_gates(&self, code: &Descriptor) -> bool {
        let a = code.attributes();
        self.is_long() && (!a.has(A::L) || a.has(A::DB))
    }

    fn check_call_gate(&mut self, d: &Descriptor, selector: u16) -> Flow {
        let known = d.kind() == 0xC || (d.kind() == 4 && !self.is_long());
        // The type of a long gate's upper half is zero (APM2 figure 4-23).
        let whole = !self.is_long() || d.upper >> 40 & 0x1F == 0;
        if !known || !whole {
            if matches!(d.kind(), 1 | 3 | 5 | 9 | 0xB) && !self.is_long() {
                tracing::warn!(selector, "hardware task switch is not supported");
            }
            return self.gp(selector_error(selector));
        }
        if d.dpl() < self.cpl.max((selector & 3) as u8) {
            return self.gp(selector_error(selector));
        }
        if !d.is_present() {
            return self.fault(vector::NP, selector_error(selector));
        }
        Ok(())
    }

    /// CALL far with return offset `back`.
    pub(crate) fn far_call(
        &mut self,
        bus: &mut dyn Bus,
        selector: u16,
        offset: u64,
        size: u8,
        back: u64,
    ) -> Flow {
        let old_sp = self.gpr[4];
        if self.is_real_like() {
            let cs = self.real_segment(CS, selector);
            self.push_pair(bus, size, back, old_sp)?;
            self.set_segment(CS, cs);
            self.gpr[RIP] = offset;
            return Ok(());
        }
        if selector & !3 == 0 {
            return self.gp(0);
        }
        let d = self.descriptor(bus, selector, vector::GP)?;
        if !d.is_segment() {
            return self.call_gate(bus, &d, selector, back);
        }
        let cs = self.direct_code(bus, &d, selector)?;
        self.check_code_offset(&cs, offset)?;
        self.push_pair(bus, size, back, old_sp)?;
        self.set_segment(CS, cs);
        self.gpr[RIP] = offset;
        Ok(())
    }

    /// Pushes CS and the return offset, or restores the stack pointer.
    fn push_pair(&mut self, bus: &mut dyn Bus, size: u8, back: u64, old_sp: u64) -> Flow {
        let idx = self.cur_idx;
        let cs = self.seg[CS].selector.into();
        let done = self
            .push(bus, size, cs, idx)
            .and_then(|()| self.push(bus, size, back, idx));
        if done.is_err() {
            self.gpr[4] = old_sp;
        }
        done
    }

    fn call_gate(&mut self, bus: &mut dyn Bus, d: &Descriptor, selector: u16, back: u64) -> Flow {
        self.check_call_gate(d, selector)?;
        let size = match (self.is_long(), d.kind()) {
            (true, _) => 8,
            (false, 0xC) => 4,
            _ => 2,
        };
        let target = d.gate_selector();
        let t = self.descriptor(bus, target, vector::GP)?;
        if !t.is_code() || t.dpl() > self.cpl || self.is_not_for_gates(&t) {
            return self.gp(selector_error(target));
        }
        if !t.is_present() {
            return self.fault(vector::NP, selector_error(target));
        }
        if self.is_long() && !is_canonical(gate_offset(d)) {
            return self.gp(0);
        }
        let old_sp = self.gpr[4];
        let cpl = if t.is_conforming() { self.cpl } else { t.dpl() };
        let cs = t.register(target & !3 | u16::from(cpl));
        if cpl == self.cpl {
            self.push_pair(bus, size, back, old_sp)?;
            self.set_segment(CS, cs);
            self.gpr[RIP] = gate_offset(d);
            return Ok(());
        }
        let params = if size == 8 { 0 } else { d.raw >> 32 & 31 };
        let mut values = vec![self.seg[SS].selector.into(), old_sp];
        for n in (0..params).rev() {
            values.push(self.peek(bus, n * u64::from(size), size, 0)?);
        }
        values.extend([self.seg[CS].selector.into(), back]);
        self.gate_frame(bus, size, cpl, &values)?;
        self.cpl = cpl;
        self.set_segment(CS, cs);
        self.update_segment(SS);
        self.gpr[RIP] = gate_offset(d);
        Ok(())
    }

    /// Writes a frame to the stack that the TSS holds for `cpl`, and switches SS:SP to it.
    fn gate_frame(&mut self, bus: &mut dyn Bus, size: u8, cpl: u8, values: &[u64]) -> Flow {
        let (ss, sp) = if size == 8 {
            let sp = self.system_load(bus, self.tr.base.wrapping_add(4 + u64::from(cpl) * 8), 8)?;
            (null_stack(cpl.into(), cpl), sp)
        } else {
            let wide = self.tr.attributes.segment_type() & 8 != 0;
            let (at, n) = if wide {
                (4 + u64::from(cpl) * 8, 4)
            } else {
                (2 + u64::from(cpl) * 4, 2)
            };
            if at + 2 * u64::from(n) > u64::from(self.tr.limit) + 1 {
                return self.fault(vector::TS, selector_error(self.tr.selector));
            }
            let sp = self.system_load(bus, self.tr.base.wrapping_add(at), n)?;
            let ss = self.system_load(bus, self.tr.base.wrapping_add(at + u64::from(n)), 2)?;
            (self.check_stack_segment(bus, ss as u16, cpl, vector::TS)?, sp)
        };
        let mask = match size {
            8 => u64::MAX,
            _ if ss.attributes.has(A::DB) => 0xFFFF_FFFF,
            _ => 0xFFFF,
        };
        let mut at = sp;
        for &v in values {
            at = at.wrapping_sub(size.into()) & mask;
            self.system_store(bus, ss.base.wrapping_add(at), size, v)?;
        }
        self.seg[SS] = ss;
        self.gpr[4] = at;
        Ok(())
    }

    /// RETF, dropping `drop` bytes more.
    pub(crate) fn far_return(&mut self, bus: &mut dyn Bus, size: u8, drop: u64) -> Flow {
        let n = u64::from(size);
        let idx = self.cur_idx;
        let rip = self.peek(bus, 0, size, idx)?;
        let selector = self.peek(bus, n, size, idx)? as u16;
        if self.is_real_like() {
            let cs = self.real_segment(CS, selector);
            self.drop_stack(2 * n + drop);
            self.set_segment(CS, cs);
            self.gpr[RIP] = rip;
            return Ok(());
        }
        let cs = self.return_code(bus, selector)?;
        self.check_code_offset(&cs, rip)?;
        let rpl = (selector & 3) as u8;
        if rpl == self.cpl {
            self.drop_stack(2 * n + drop);
            self.set_segment(CS, cs);
            self.gpr[RIP] = rip;
            return Ok(());
        }
        let sp = self.peek(bus, 2 * n + drop, size, idx)?;
        let ss = self.peek(bus, 3 * n + drop, size, idx)? as u16;
        let ss = self.return_stack(bus, ss, rpl, &cs)?;
        self.outer(cs, ss, rpl);
        self.gpr[RIP] = rip;
        self.set_stack(sp.wrapping_add(drop));
        Ok(())
    }

    /// The code segment that RETF and IRET return to.
    fn return_code(&mut self, bus: &mut dyn Bus, selector: u16) -> Result<SegmentRegister, Stop> {
        if selector & !3 == 0 {
            return self.gp(0);
        }
        let d = self.descriptor(bus, selector, vector::GP)?;
        let rpl = (selector & 3) as u8;
        let allowed = if d.is_conforming() {
            d.dpl() <= rpl
        } else {
            d.dpl() == rpl
        };
        let both = self.is_long() && d.attributes().has(A::L) && d.attributes().has(A::DB);
        if !d.is_code() || rpl < self.cpl || !allowed || both {
            return self.gp(selector_error(selector));
        }
        if !d.is_present() {
            return self.fault(vector::NP, selector_error(selector));
        }
        self.mark_accessed(bus, &d)?;
        Ok(d.register(selector))
    }

    fn return_stack(
        &mut self,
        bus: &mut dyn Bus,
        selector: u16,
        cpl: u8,
        cs: &SegmentRegister,
    ) -> Result<SegmentRegister, Stop> {
        let long = self.is_long() && cs.attributes.has(A::L);
        if selector & !3 == 0 && long && cpl < 3 {
            return Ok(null_stack(selector, cpl));
        }
        self.check_stack_segment(bus, selector, cpl, vector::GP)
    }

    /// Goes to an outer privilege level: data segments that it may not see become null.
    fn outer(&mut self, cs: SegmentRegister, ss: SegmentRegister, cpl: u8) {
        self.cpl = cpl;
        self.seg[SS] = ss;
        self.set_segment(CS, cs);
        self.update_segment(SS);
        for i in [ES, DS, FS, GS] {
            let a = self.seg[i].attributes;
            let conforming = a.segment_type() & 0xC == 0xC;
            if a.has(A::P) && a.has(A::S) && !a.has(A::UNUSABLE) && !conforming && a.dpl() < cpl {
                let s = SegmentRegister {
                    selector: 0,
                    attributes: A(A::UNUSABLE),
                    ..self.seg[i]
                };
                self.set_segment(i, s);
            }
        }
    }

    /// IRET.
    pub(crate) fn interrupt_return(&mut self, bus: &mut dyn Bus, size: u8) -> Flow {
        let n = u64::from(size);
        let idx = self.cur_idx;
        if self.is_v86() && self.iopl() < 3 {
            return self.gp(0);
        }
        if self.sys & rflags::NT != 0 && self.is_protected() && !self.is_v86() {
            tracing::warn!("return to a task by iret is not supported");
            return self.gp(0);
        }
        let rip = self.peek(bus, 0, size, idx)?;
        let selector = self.peek(bus, n, size, idx)? as u16;
        let flags = self.peek(bus, 2 * n, size, idx)?;
        if self.is_real_like() {
            let cs = self.real_segment(CS, selector);
            self.drop_stack(3 * n);
            self.write_flags(flags, size);
            self.set_segment(CS, cs);
            self.gpr[RIP] = rip;
            self.nmi_masked = false;
            self.recheck = true;
            return Ok(());
        }
        if flags & rflags::VM != 0 && size == 4 && self.cpl == 0 && !self.is_long() {
            return self.return_to_v86(bus, rip, selector, flags);
        }
        let cs = self.return_code(bus, selector)?;
        self.check_code_offset(&cs, rip)?;
        let rpl = (selector & 3) as u8;
        let cpl = self.cpl;
        if rpl != cpl || self.is_code64() {
            let sp = self.peek(bus, 3 * n, size, idx)?;
            let ss = self.peek(bus, 4 * n, size, idx)? as u16;
            let ss = self.return_stack(bus, ss, rpl, &cs)?;
            self.return_flags(flags, size, cpl);
            self.outer(cs, ss, rpl);
            self.set_stack(sp);
        } else {
            self.drop_stack(3 * n);
            self.return_flags(flags, size, cpl);
            self.set_segment(CS, cs);
        }
        self.gpr[RIP] = rip;
        self.nmi_masked = false;
        self.recheck |= self.nmi_pending;
        Ok(())
    }

    /// RFLAGS by IRET at privilege level `cpl`.
    fn return_flags(&mut self, v: u64, size: u8, cpl: u8) {
        let mut mask = 0x25_4DD5u64;
        if cpl <= self.iopl() {
            mask |= rflags::IF;
        }
        if cpl == 0 {
            mask |= rflags::IOPL | rflags::VIF | rflags::VIP;
        }
        if size == 2 {
            mask &= 0xFFFF;
        }
        let old = self.rflags();
        self.set_rflags(old & !mask | v & mask);
    }

    fn return_to_v86(&mut self, bus: &mut dyn Bus, rip: u64, cs: u16, flags: u64) -> Flow {
        let mut v = [0u16; 6];
        let sp = self.peek(bus, 12, 4, self.cur_idx)?;
        for (i, v) in v.iter_mut().enumerate().skip(1) {
            *v = self.peek(bus, 12 + 4 * i as u64, 4, self.cur_idx)? as u16;
        }
        let [_, ss, es, ds, fs, gs] = v;
        self.cpl = 3;
        self.set_rflags(flags);
        for (i, s) in [(CS, cs), (SS, ss), (ES, es), (DS, ds), (FS, fs), (GS, gs)] {
            let s = self.real_segment(i, s);
            self.set_segment(i, s);
        }
        self.gpr[4] = sp;
        self.gpr[RIP] = rip & 0xFFFF;
        Ok(())
    }

    fn flat_code(selector: u16, dpl: u8, long: bool) -> SegmentRegister {
        let size = if long { A::L } else { A::DB };
        let attributes = A(0x9B | u32::from(dpl) << 5 | A::G | size);
        SegmentRegister {
            selector,
            attributes,
            limit: u32::MAX,
            base: 0,
        }
    }
    fn flat_data(selector: u16, dpl: u8) -> SegmentRegister {
        let attributes = A(0x93 | u32::from(dpl) << 5 | A::G | A::DB);
        SegmentRegister {
            selector,
            attributes,
            limit: u32::MAX,
            base: 0,
        }
    }
    fn enter(&mut self, cs: SegmentRegister, ss: SegmentRegister, cpl: u8) {
        self.cpl = cpl;
        self.seg[SS] = ss;
        self.set_segment(CS, cs);
        self.update_segment(SS);
    }

    /// SYSCALL; `next` is the return address.
    pub(crate) fn syscall(&mut self, next: u64) -> Flow {
        if self.efer & efer::SCE == 0 || !self.is_protected() {
            return self.ud();
        }
        let selector = (self.msrs.star >> 32) as u16 & !3;
        if !self.is_long() {
            self.gpr[1] = next & 0xFFFF_FFFF;
            self.set_rflags(self.rflags() & !(rflags::IF | rflags::RF | rflags::VM));
            self.enter(
                Self::flat_code(selector, 0, false),
                Self::flat_data(selector + 8, 0),
                0,
            );
            self.gpr[RIP] = self.msrs.star & 0xFFFF_FFFF;
            return Ok(());
        }
        let target = if self.is_code64() {
            self.msrs.lstar
        } else {
            self.msrs.cstar
        };
        self.gpr[1] = next;
        self.gpr[11] = self.rflags() & !rflags::RF;
        self.set_rflags(self.rflags() & !(self.msrs.sfmask | rflags::RF));
        self.enter(
            Self::flat_code(selector, 0, true),
            Self::flat_data(selector + 8, 0),
            0,
        );
        self.gpr[RIP] = target;
        Ok(())
    }

    /// SYSRET with an operand size of 8 or 4 bytes.
    pub(crate) fn sysret(&mut self, size: u8) -> Flow {
        if self.efer & efer::SCE == 0 || !self.is_protected() {
            return self.ud();
        }
        self.need_cpl0()?;
        let selector = (self.msrs.star >> 48) as u16;
        let long = size == 8;
        let rip = if long {
            self.gpr[1]
        } else {
            self.gpr[1] & 0xFFFF_FFFF
        };
        if long && (rip as i64) << 16 >> 16 != rip as i64 {
            return self.gp(0);
        }
        if self.is_long() {
            self.set_rflags(self.gpr[11] & 0x3C_7FD7);
        } else {
            self.set_rflags(self.rflags() | rflags::IF);
        }
        let cs = (selector + if long { 16 } else { 0 }) | 3;
        self.enter(
            Self::flat_code(cs, 3, long),
            Self::flat_data((selector + 8) | 3, 3),
            3,
        );
        self.gpr[RIP] = rip;
        Ok(())
    }

    /// AMD's processors know SYSENTER and SYSEXIT in legacy mode only (APM3, SYSENTER).
    fn has_sysenter(&self) -> bool {
        const AMD: u32 = u32::from_le_bytes(*b"Auth");
        let vendor = x86defs::cpuid::find(&self.cpuid, 0, 0);
        !self.is_long() || vendor.is_none_or(|leaf| leaf.ebx != AMD)
    }

    /// SYSENTER.
    pub(crate) fn sysenter(&mut self) -> Flow {
        if !self.has_sysenter() {
            return self.ud();
        }
        let (cs, esp, eip) = self.msrs.sysenter;
        if !self.is_protected() || cs & 0xFFFC == 0 {
            return self.gp(0);
        }
        let long = self.is_long();
        self.set_rflags(self.rflags() & !(rflags::IF | rflags::VM | rflags::RF));
        let cs = cs as u16 & !3;
        self.enter(Self::flat_code(cs, 0, long), Self::flat_data(cs + 8, 0), 0);
        let mask = if long { u64::MAX } else { 0xFFFF_FFFF };
        self.gpr[4] = esp & mask;
        self.gpr[RIP] = eip & mask;
        Ok(())
    }

    /// SYSEXIT with an operand size of 8 or 4 bytes.
    pub(crate) fn sysexit(&mut self, size: u8) -> Flow {
        if !self.has_sysenter() {
            return self.ud();
        }
        let cs = self.msrs.sysenter.0;
        if !self.is_protected() || cs & 0xFFFC == 0 {
            return self.gp(0);
        }
        self.need_cpl0()?;
        let long = size == 8;
        let cs = (cs as u16 & !3) + if long { 32 } else { 16 };
        let mask = if long { u64::MAX } else { 0xFFFF_FFFF };
        let (rip, sp) = (self.gpr[2] & mask, self.gpr[1] & mask);
        if long && ((rip as i64) << 16 >> 16 != rip as i64 || (sp as i64) << 16 >> 16 != sp as i64) {
            return self.gp(0);
        }
        self.enter(
            Self::flat_code(cs | 3, 3, long),
            Self::flat_data((cs + 8) | 3, 3),
            3,
        );
        self.gpr[4] = sp;
        self.gpr[RIP] = rip;
        Ok(())
    }
}

fn gate_offset(d: &Descriptor) -> u64 {
    if d.kind() == 4 {
        d.raw & 0xFFFF
    } else {
        d.gate_offset()
    }
}
