// SPDX-License-Identifier: MIT
//! Delivery of exceptions and interrupts (APM2 chapter 8): real-mode vectors, 16-, 32- and 64-bit
//! gates, stack switches, IST, double and triple faults.
//!
//! Always true: a failed delivery changes no register. Not here: task gates (logged, #GP).

use crate::bus::Bus;
use crate::core::{CS, Core, DS, ES, FS, Fault, Flow, GS, RIP, SS, Stop, Why};
use crate::segment::{Descriptor, null_stack, selector_error};
use x86defs::{SegmentAttributes as A, SegmentRegister, rflags, vector};

/// Where an event comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// A fault: RIP is the instruction's; RF is set in the pushed flags.
    Fault,
    /// A trap (single step): RIP is the next instruction's.
    Trap,
    /// External interrupt or NMI.
    External,
    /// INT n, INT3, INTO.
    Software,
}

/// A stack that is being written.
struct Stack {
    register: SegmentRegister,
    sp: u64,
    mask: u64,
    /// Regime of the privilege level that owns it.
    regime: usize,
}

/// An event, a fault of its delivery, another of that, a double fault: every chain that ends is shorter. Alignment
/// checks whose handler has a misaligned stack of user mode go on for ever: a processor hangs in them
/// (CVE-2015-5307), this one shuts down, because its host must get an answer.
const MOST_DELIVERIES: u32 = 8;

fn is_contributory(v: u8) -> bool {
    v == vector::DE || (vector::TS..=vector::GP).contains(&v)
}

impl Core {
    /// Delivers a fault, escalating to #DF. `Err` means triple fault, or a delivery without end.
    pub(crate) fn raise(&mut self, bus: &mut dyn Bus, fault: Fault, source: Source) -> Result<(), ()> {
        let (mut fault, mut source) = (fault, source);
        for _ in 0..MOST_DELIVERIES {
            if let Some(t) = &mut self.tracer {
                t.exception(fault.vector, fault.error, self.gpr[RIP], self.fault_la);
            }
            if self.deliver(bus, fault.vector, fault.error, source).is_ok() {
                return Ok(());
            }
            let Why::Fault(mut next) = self.why else {
                return Err(());
            };
            if source != Source::Software && (vector::TS..=vector::GP).contains(&next.vector) {
                // EXT: the fault came while an event was delivered (APM2 section 8.4.1).
                next.error = next.error.map(|e| e | 1);
            }
            if fault.vector == vector::DF {
                return Err(());
            }
            let hard = is_contributory(fault.vector) && is_contributory(next.vector);
            let paging =
                fault.vector == vector::PF && (next.vector == vector::PF || is_contributory(next.vector));
            fault = match source != Source::External && source != Source::Software && (hard || paging) {
                true => Fault {
                    vector: vector::DF,
                    error: Some(0),
                },
                false => next,
            };
            source = Source::Fault;
        }
        tracing::warn!(
            vector = fault.vector,
            rip = format_args!("{:#x}", self.gpr[RIP]),
            "the delivery of an exception raises it again, for ever: the processor shuts down"
        );
        Err(())
    }

    /// Delivers one event. RIP is what the handler returns to.
    pub(crate) fn deliver(&mut self, bus: &mut dyn Bus, v: u8, error: Option<u32>, source: Source) -> Flow {
        if v == vector::PF && source == Source::Fault {
            self.cr2 = self.fault_la;
        }
        self.shadow_at = u64::MAX;
        let single = std::mem::replace(&mut self.single, true);
        let done = if !self.is_protected() {
            self.deliver_real(bus, v)
        } else if self.is_long() {
            self.deliver_long(bus, v, error, source)
        } else {
            self.deliver_protected(bus, v, error, source)
        };
        self.single = single;
        if v == vector::DB && source != Source::Software && done.is_ok() {
            self.allow_debug_registers();
        }
        done
    }

    fn deliver_real(&mut self, bus: &mut dyn Bus, v: u8) -> Flow {
        let at = u64::from(v) * 4;
        if at + 3 > u64::from(self.idtr.limit) {
            return self.gp(at as u32 * 2 + 2);
        }
        let target = self.system_load(bus, self.idtr.base.wrapping_add(at), 4)?;
        let mut s = self.stack();
        self.push_on(bus, &mut s, 2, self.rflags())?;
        self.push_on(bus, &mut s, 2, self.seg[CS].selector.into())?;
        self.push_on(bus, &mut s, 2, self.gpr[RIP])?;
        self.set_sp(&s);
        self.set_rflags(self.rflags() & !(rflags::IF | rflags::TF | rflags::AC | rflags::RF));
        let cs = self.real_segment(CS, (target >> 16) as u16);
        self.set_segment(CS, cs);
        self.gpr[RIP] = target & 0xFFFF;
        Ok(())
    }

    /// The flags image that a handler gets.
    fn pushed_flags(&self, source: Source) -> u64 {
        self.rflags() | if source == Source::Fault { rflags::RF } else { 0 }
    }

    /// Checks that a gate of the IDT may be used, and answers it.
    fn gate(&mut self, bus: &mut dyn Bus, v: u8, source: Source) -> Result<Descriptor, Stop> {
        let size = if self.is_long() { 16 } else { 8 };
        let at = u64::from(v) * size;
        let error = u32::from(v) << 3 | 2 | u32::from(source != Source::Software);
        if at + size - 1 > u64::from(self.idtr.limit) {
            return self.gp(error);
        }
        let la = self.idtr.base.wrapping_add(at);
        let raw = self.system_load(bus, la, 8)?;
        let upper = if size == 16 {
            self.system_load(bus, la.wrapping_add(8), 8)? & 0xFFFF_FFFF
        } else {
            0
        };
        let d = Descriptor { raw, upper, la };
        let known = matches!(d.kind(), 0xE | 0xF) || (matches!(d.kind(), 6 | 7) && !self.is_long());
        if d.is_segment() || !known {
            if d.kind() == 5 && !self.is_long() {
                tracing::warn!(vector = v, "task gate in the idt is not supported");
            }
            return self.gp(error);
        }
        if source == Source::Software && d.dpl() < self.cpl {
            return self.gp(error);
        }
        if !d.is_present() {
            return self.fault(vector::NP, error);
        }
        Ok(d)
    }

    /// The handler's code segment and privilege level.
    fn handler_segment(
        &mut self,
        bus: &mut dyn Bus,
        gate: &Descriptor,
    ) -> Result<(SegmentRegister, u8), Stop> {
        let selector = gate.gate_selector();
        if selector & !3 == 0 {
            return self.gp(0);
        }
        let d = self.descriptor(bus, selector, vector::GP)?;
        let mode = !self.is_long() || (d.attributes().has(A::L) && !d.attributes().has(A::DB));
        if !d.is_code() || d.dpl() > self.cpl || !mode {
            return self.gp(selector_error(selector));
        }
        if !d.is_present() {
            return self.fault(vector::NP, selector_error(selector));
        }
        self.mark_accessed(bus, &d)?;
        let cpl = if d.is_conforming() { self.cpl } else { d.dpl() };
        Ok((d.register(selector & !3 | u16::from(cpl)), cpl))
    }

    fn deliver_long(&mut self, bus: &mut dyn Bus, v: u8, error: Option<u32>, source: Source) -> Flow {
        let gate = self.gate(bus, v, source)?;
        let (cs, cpl) = self.handler_segment(bus, &gate)?;
        let ist = gate.raw >> 32 & 7;
        let mut sp = self.gpr[4];
        if ist != 0 {
            sp = self.tss_stack64(bus, 0x24 + (ist - 1) * 8)?;
        } else if cpl < self.cpl {
            sp = self.tss_stack64(bus, 4 + u64::from(cpl) * 8)?;
        }
        let regime = if cpl == 3 { 1 } else { 0 };
        let mut s = Stack {
            register: SegmentRegister::default(),
            sp: sp & !15,
            mask: u64::MAX,
            regime,
        };
        let frame = [
            self.seg[SS].selector.into(),
            self.gpr[4],
            self.pushed_flags(source),
            self.seg[CS].selector.into(),
            self.gpr[RIP],
        ];
        for value in frame {
            self.push_long(bus, &mut s, value)?;
        }
        if let Some(e) = error {
            self.push_long(bus, &mut s, e.into())?;
        }
        if cpl < self.cpl {
            self.seg[SS] = null_stack(cpl.into(), cpl);
        }
        self.enter_handler(&gate, cs, cpl);
        self.update_segment(SS);
        self.gpr[4] = s.sp;
        self.gpr[RIP] = gate.gate_offset();
        Ok(())
    }

    fn enter_handler(&mut self, gate: &Descriptor, cs: SegmentRegister, cpl: u8) {
        let mut clear = rflags::TF | rflags::NT | rflags::RF | rflags::VM;
        if gate.kind() & 1 == 0 {
            clear |= rflags::IF;
        }
        self.cpl = cpl;
        self.set_rflags(self.rflags() & !clear);
        self.set_segment(CS, cs);
    }

    fn push_long(&mut self, bus: &mut dyn Bus, s: &mut Stack, v: u64) -> Flow {
        let sp = s.sp.wrapping_sub(8);
        if (sp as i64) << 16 >> 16 != sp as i64 {
            return self.fault(vector::SS, 0);
        }
        let regime = std::mem::replace(&mut self.regime, s.regime);
        let mask = std::mem::replace(&mut self.lin_mask, u64::MAX);
        let done = self.store(bus, sp, v, self.cur_idx);
        self.regime = regime;
        self.lin_mask = mask;
        s.sp = sp;
        done
    }

    fn tss_stack64(&mut self, bus: &mut dyn Bus, at: u64) -> Result<u64, Stop> {
        if at + 7 > u64::from(self.tr.limit) {
            return self.fault(vector::TS, selector_error(self.tr.selector));
        }
        let sp = self.system_load(bus, self.tr.base.wrapping_add(at), 8)?;
        if (sp as i64) << 16 >> 16 != sp as i64 {
            return self.fault(vector::SS, 0);
        }
        Ok(sp)
    }

    /// SS:SP for privilege level `cpl` from the TSS.
    fn tss_stack(&mut self, bus: &mut dyn Bus, cpl: u8) -> Result<Stack, Stop> {
        let wide = self.tr.attributes.segment_type() & 8 != 0;
        let (at, size) = if wide {
            (4 + u64::from(cpl) * 8, 4)
        } else {
            (2 + u64::from(cpl) * 4, 2)
        };
        if at + u64::from(size) * 2 - 1 > u64::from(self.tr.limit) {
            return self.fault(vector::TS, selector_error(self.tr.selector));
        }
        let sp = self.system_load(bus, self.tr.base.wrapping_add(at), size)?;
        let ss = self.system_load(bus, self.tr.base.wrapping_add(at + u64::from(size)), 2)?;
        let register = self.check_stack_segment(bus, ss as u16, cpl, vector::TS)?;
        let mask = if register.attributes.has(A::DB) {
            0xFFFF_FFFF
        } else {
            0xFFFF
        };
        Ok(Stack {
            register,
            sp,
            mask,
            regime: 0,
        })
    }

    fn deliver_protected(&mut self, bus: &mut dyn Bus, v: u8, error: Option<u32>, source: Source) -> Flow {
        let gate = self.gate(bus, v, source)?;
        let (cs, cpl) = self.handler_segment(bus, &gate)?;
        if self.is_v86() && cpl != 0 {
            return self.gp(selector_error(gate.gate_selector()));
        }
        let size = if gate.kind() & 8 != 0 { 4 } else { 2 };
        let old = (self.seg[SS].selector, self.gpr[4]);
        let switch = cpl < self.cpl;
        let v86 = self.is_v86();
        let mut s = if switch {
            self.tss_stack(bus, cpl)?
        } else {
            self.stack()
        };
        if v86 {
            for i in [GS, FS, DS, ES] {
                self.push_on(bus, &mut s, size, self.seg[i].selector.into())?;
            }
        }
        if switch {
            self.push_on(bus, &mut s, size, old.0.into())?;
            self.push_on(bus, &mut s, size, old.1)?;
        }
        self.push_on(bus, &mut s, size, self.pushed_flags(source))?;
        self.push_on(bus, &mut s, size, self.seg[CS].selector.into())?;
        self.push_on(bus, &mut s, size, self.gpr[RIP])?;
        if let Some(e) = error {
            self.push_on(bus, &mut s, size, e.into())?;
        }
        self.enter_handler(&gate, cs, cpl);
        if switch {
            self.set_segment(SS, s.register);
        }
        if v86 {
            for i in [GS, FS, DS, ES] {
                self.set_segment(
                    i,
                    SegmentRegister {
                        attributes: A(A::UNUSABLE),
                        ..Default::default()
                    },
                );
            }
        }
        self.set_sp(&s);
        self.gpr[RIP] = gate.gate_offset() & if size == 4 { 0xFFFF_FFFF } else { 0xFFFF };
        Ok(())
    }

    /// The current stack outside 64-bit mode.
    fn stack(&self) -> Stack {
        Stack {
            register: self.seg[SS],
            sp: self.gpr[4],
            mask: self.stack_mask(),
            regime: self.regime,
        }
    }

    fn set_sp(&mut self, s: &Stack) {
        self.gpr[4] = match s.mask {
            0xFFFF => self.gpr[4] & !0xFFFF | s.sp & 0xFFFF,
            m => s.sp & m,
        };
    }

    fn push_on(&mut self, bus: &mut dyn Bus, s: &mut Stack, size: u8, v: u64) -> Flow {
        let sp = s.sp.wrapping_sub(size.into()) & s.mask;
        let expand_down = s.register.attributes.segment_type() & 0xC == 4 && !self.is_real_like();
        let limit = u64::from(s.register.limit);
        let bad = match expand_down {
            false => sp + u64::from(size) - 1 > limit,
            true => sp <= limit,
        };
        if bad {
            return self.fault(vector::SS, 0);
        }
        let la = s.register.base.wrapping_add(sp) & 0xFFFF_FFFF;
        let regime = std::mem::replace(&mut self.regime, s.regime);
        let done = self.store_n(bus, la, size, v, self.cur_idx);
        self.regime = regime;
        s.sp = sp;
        done
    }
}
