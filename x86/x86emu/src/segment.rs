// SPDX-License-Identifier: MIT
//! Descriptors and loading of segment registers (APM2 chapter 4).
//!
//! Always true: a failed load changes no register. Not here: control transfers.

use crate::bus::Bus;
use crate::core::{CS, Core, Flow, SS, Stop};
use x86defs::{SegmentAttributes as A, SegmentRegister, cr0, rflags, vector};

/// A descriptor-table entry and where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub raw: u64,
    /// Upper 8 bytes of a 16-byte system descriptor in long mode.
    pub upper: u64,
    pub la: u64,
}

impl Descriptor {
    pub(crate) fn attributes(&self) -> A {
        A((self.raw >> 40 & 0xF0FF) as u32)
    }
    pub(crate) fn limit(&self) -> u32 {
        let l = (self.raw & 0xFFFF | self.raw >> 32 & 0xF_0000) as u32;
        if self.attributes().has(A::G) {
            l << 12 | 0xFFF
        } else {
            l
        }
    }
    pub(crate) fn base(&self) -> u64 {
        self.raw >> 16 & 0xFF_FFFF | self.raw >> 32 & 0xFF00_0000 | self.upper << 32
    }
    pub(crate) fn kind(&self) -> u8 {
        self.attributes().segment_type()
    }
    pub(crate) fn dpl(&self) -> u8 {
        self.attributes().dpl()
    }
    pub(crate) fn is_present(&self) -> bool {
        self.attributes().has(A::P)
    }
    /// Code or data, not a system descriptor.
    pub(crate) fn is_segment(&self) -> bool {
        self.attributes().has(A::S)
    }
    pub(crate) fn is_code(&self) -> bool {
        self.is_segment() && self.kind() & 8 != 0
    }
    pub(crate) fn is_conforming(&self) -> bool {
        self.is_code() && self.kind() & 4 != 0
    }
    /// The register that loading it gives.
    pub(crate) fn register(&self, selector: u16) -> SegmentRegister {
        let attributes = self.attributes();
        // A loaded code or data segment is accessed.
        let attributes = if self.is_segment() {
            A(attributes.0 | 1)
        } else {
            attributes
        };
        SegmentRegister {
            selector,
            attributes,
            limit: self.limit(),
            base: self.base(),
        }
    }
    /// A gate's target selector.
    pub(crate) fn gate_selector(&self) -> u16 {
        (self.raw >> 16) as u16
    }
    /// A gate's target offset (32 or, with `upper`, 64 bits).
    pub(crate) fn gate_offset(&self) -> u64 {
        self.raw & 0xFFFF | self.raw >> 32 & 0xFFFF_0000 | self.upper << 32
    }
}

/// The error code that names a selector.
pub(crate) fn selector_error(selector: u16) -> u32 {
    u32::from(selector & 0xFFFC)
}

impl Core {
    /// Runs `f` with the rights of the processor itself (descriptor tables, TSS).
    pub(crate) fn supervisor<R>(&mut self, f: impl FnOnce(&mut Self) -> R) -> R {
        let regime = std::mem::replace(&mut self.regime, 0);
        let r = f(self);
        self.regime = regime;
        r
    }
    pub(crate) fn system_load(&mut self, bus: &mut dyn Bus, la: u64, size: u8) -> Result<u64, Stop> {
        let la = la & if self.is_long() { u64::MAX } else { 0xFFFF_FFFF };
        self.supervisor(|c| c.load_n(bus, la, size, c.cur_idx))
    }
    pub(crate) fn system_store(&mut self, bus: &mut dyn Bus, la: u64, size: u8, v: u64) -> Flow {
        let la = la & if self.is_long() { u64::MAX } else { 0xFFFF_FFFF };
        self.supervisor(|c| c.store_n(bus, la, size, v, c.cur_idx))
    }

    /// Reads a descriptor; outside the table is a fault with `vector` and the selector.
    pub(crate) fn descriptor(
        &mut self,
        bus: &mut dyn Bus,
        selector: u16,
        vector: u8,
    ) -> Result<Descriptor, Stop> {
        let (base, limit) = if selector & 4 != 0 {
            let usable = !self.ldtr.attributes.has(A::UNUSABLE) && self.ldtr.attributes.has(A::P);
            (self.ldtr.base, if usable { self.ldtr.limit } else { 0 })
        } else {
            (self.gdtr.base, u32::from(self.gdtr.limit))
        };
        let offset = u32::from(selector & !7);
        if offset + 7 > limit {
            return self.fault(vector, selector_error(selector));
        }
        let la = base.wrapping_add(offset.into());
        let raw = self.system_load(bus, la, 8)?;
        let mut d = Descriptor { raw, upper: 0, la };
        if self.is_long() && !d.is_segment() && d.kind() != 5 {
            if offset + 15 > limit {
                return self.fault(vector, selector_error(selector));
            }
            d.upper = self.system_load(bus, la.wrapping_add(8), 8)?;
        }
        Ok(d)
    }

    /// Sets the accessed bit in memory.
    pub(crate) fn mark_accessed(&mut self, bus: &mut dyn Bus, d: &Descriptor) -> Flow {
        if d.is_segment() && d.kind() & 1 == 0 {
            let byte = (d.raw >> 40) as u8 | 1;
            self.system_store(bus, d.la.wrapping_add(5), 1, byte.into())?;
        }
        Ok(())
    }

    /// What a selector means in real and virtual-8086 mode; limit and attributes stay in real mode.
    pub(crate) fn real_segment(&self, i: usize, selector: u16) -> SegmentRegister {
        let base = u64::from(selector) << 4;
        if self.is_v86() {
            return SegmentRegister {
                selector,
                attributes: A(0xF3),
                limit: 0xFFFF,
                base,
            };
        }
        SegmentRegister {
            selector,
            base,
            ..self.seg[i]
        }
    }

    pub(crate) fn set_segment(&mut self, i: usize, s: SegmentRegister) {
        self.seg[i] = s;
        if i == CS || i == SS {
            self.update_mode();
        }
        self.update_segment(i);
    }

    /// MOV/POP/LxS to ES, SS, DS, FS or GS.
    pub(crate) fn load_segment(&mut self, bus: &mut dyn Bus, i: usize, selector: u16) -> Flow {
        if self.is_real_like() {
            let s = self.real_segment(i, selector);
            self.set_segment(i, s);
            return Ok(());
        }
        if i == SS {
            let cpl = self.cpl;
            let s = self.check_stack_segment(bus, selector, cpl, vector::GP)?;
            self.set_segment(SS, s);
            return Ok(());
        }
        if selector & !3 == 0 {
            let base = if self.is_code64() { 0 } else { self.seg[i].base };
            self.set_segment(
                i,
                SegmentRegister {
                    selector,
                    attributes: A(A::UNUSABLE),
                    limit: 0,
                    base,
                },
            );
            return Ok(());
        }
        let d = self.descriptor(bus, selector, vector::GP)?;
        let readable = d.is_segment() && (d.kind() & 8 == 0 || d.kind() & 2 != 0);
        let rpl = (selector & 3) as u8;
        let private = !d.is_conforming() && d.dpl() < rpl.max(self.cpl);
        if !readable || private {
            return self.gp(selector_error(selector));
        }
        if !d.is_present() {
            return self.fault(vector::NP, selector_error(selector));
        }
        self.mark_accessed(bus, &d)?;
        self.set_segment(i, d.register(selector));
        Ok(())
    }

    /// Checks a stack segment for privilege level `cpl`; failures use `vector` (#GP or #TS).
    pub(crate) fn check_stack_segment(
        &mut self,
        bus: &mut dyn Bus,
        selector: u16,
        cpl: u8,
        vector: u8,
    ) -> Result<SegmentRegister, Stop> {
        if selector & !3 == 0 {
            if self.is_code64() && cpl < 3 && (selector & 3) as u8 == cpl {
                return Ok(null_stack(selector, cpl));
            }
            return self.fault(vector, selector_error(selector));
        }
        let d = self.descriptor(bus, selector, vector)?;
        let data = d.is_segment() && d.kind() & 0xA == 2;
        if !data || (selector & 3) as u8 != cpl || d.dpl() != cpl {
            return self.fault(vector, selector_error(selector));
        }
        if !d.is_present() {
            return self.fault(vector::SS, selector_error(selector));
        }
        self.mark_accessed(bus, &d)?;
        Ok(d.register(selector))
    }

    /// LLDT.
    pub(crate) fn load_ldtr(&mut self, bus: &mut dyn Bus, selector: u16) -> Flow {
        if selector & !3 == 0 {
            self.ldtr = SegmentRegister {
                selector,
                attributes: A(A::UNUSABLE),
                limit: 0,
                base: 0,
            };
            return Ok(());
        }
        let d = self.table_descriptor(bus, selector)?;
        if d.is_segment() || d.kind() != 2 {
            return self.gp(selector_error(selector));
        }
        if !d.is_present() {
            return self.fault(vector::NP, selector_error(selector));
        }
        self.ldtr = d.register(selector);
        Ok(())
    }

    /// LTR.
    pub(crate) fn load_tr(&mut self, bus: &mut dyn Bus, selector: u16) -> Flow {
        if selector & !3 == 0 {
            return self.gp(0);
        }
        let d = self.table_descriptor(bus, selector)?;
        let available = d.kind() == 9 || (d.kind() == 1 && !self.is_long());
        if d.is_segment() || !available {
            return self.gp(selector_error(selector));
        }
        if !d.is_present() {
            return self.fault(vector::NP, selector_error(selector));
        }
        let busy = (d.raw >> 40) as u8 | 2;
        self.system_store(bus, d.la.wrapping_add(5), 1, busy.into())?;
        self.tr = d.register(selector);
        self.tr.attributes.0 |= 2;
        Ok(())
    }

    fn table_descriptor(&mut self, bus: &mut dyn Bus, selector: u16) -> Result<Descriptor, Stop> {
        if selector & 4 != 0 {
            return self.gp(selector_error(selector));
        }
        self.descriptor(bus, selector, vector::GP)
    }

    /// The descriptor that LAR, LSL, VERR and VERW may look at, if any.
    pub(crate) fn visible_descriptor(
        &mut self,
        bus: &mut dyn Bus,
        selector: u16,
    ) -> Result<Option<Descriptor>, Stop> {
        if selector & !3 == 0 {
            return Ok(None);
        }
        let d = match self.descriptor(bus, selector, vector::GP) {
            Ok(d) => d,
            // Outside the table is "not visible"; a page fault on the table is a fault.
            Err(Stop) if matches!(self.why, crate::core::Why::Fault(f) if f.vector == vector::GP) => {
                return Ok(None);
            }
            Err(s) => return Err(s),
        };
        let rpl = (selector & 3) as u8;
        let hidden = !d.is_conforming() && d.dpl() < rpl.max(self.cpl);
        Ok((!hidden).then_some(d))
    }

    /// Port access rights: IOPL, else the TSS bitmap.
    pub(crate) fn check_port(&mut self, bus: &mut dyn Bus, port: u16, size: u8) -> Flow {
        if self.cr0 & cr0::PE == 0 || (self.cpl <= self.iopl() && self.sys & rflags::VM == 0) {
            return Ok(());
        }
        let tss32 = self.tr.attributes.has(A::P) && self.tr.attributes.segment_type() & 8 != 0;
        if !tss32 || self.tr.limit < 0x67 {
            return self.gp(0);
        }
        let map = self.system_load(bus, self.tr.base.wrapping_add(0x66), 2)?;
        let at = map + u64::from(port >> 3);
        if at + 1 > u64::from(self.tr.limit) {
            return self.gp(0);
        }
        let bits = self.system_load(bus, self.tr.base.wrapping_add(at), 2)? >> (port & 7);
        if bits & ((1 << size) - 1) != 0 {
            self.gp(0)
        } else {
            Ok(())
        }
    }
}

/// The null SS of 64-bit mode.
pub(crate) fn null_stack(selector: u16, cpl: u8) -> SegmentRegister {
    let attributes = A(A::UNUSABLE | u32::from(cpl) << 5);
    SegmentRegister {
        selector,
        attributes,
        limit: 0,
        base: 0,
    }
}
