// SPDX-License-Identifier: MIT
//! Reads a flattened device tree (Devicetree specification 0.4, chapter 5).
//!
//! Always true: nothing is read beyond the size that the header declares; a malformed tree ends the walk
//! with an error. No memory access of its own, so host tests run it too. Not here: bindings.

const MAGIC: u32 = 0xD00D_FEED;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;
/// Deepest nesting that is read.
pub const MAX_DEPTH: usize = 8;

/// What is wrong with a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// No magic number.
    Magic,
    /// A block, name or value passes the declared size.
    Bounds,
    /// An unknown token, or nodes that do not nest.
    Structure,
    /// Deeper than [`MAX_DEPTH`].
    Depth,
}

/// A property with the path of its node.
#[derive(Debug, Clone, Copy)]
pub struct Property<'a> {
    /// Names of the nodes from the root's children down; empty for the root's own properties.
    pub path: &'a [&'a str],
    /// Name.
    pub name: &'a str,
    /// Value.
    pub value: &'a [u8],
}

impl Property<'_> {
    /// The value's big-endian cell `index`.
    pub fn cell(&self, index: usize) -> Option<u32> {
        be32(self.value, index * 4)
    }

    /// Cells `index` and `index + 1` as one number.
    pub fn pair(&self, index: usize) -> Option<u64> {
        Some(u64::from(self.cell(index)?) << 32 | u64::from(self.cell(index + 1)?))
    }

    /// The value as text without its NUL.
    pub fn text(&self) -> Option<&str> {
        core::str::from_utf8(self.value.strip_suffix(&[0])?).ok()
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A name up to its NUL.
fn name_at(bytes: &[u8], at: usize) -> Result<&str, Broken> {
    let rest = bytes.get(at..).ok_or(Broken::Bounds)?;
    let len = rest.iter().position(|&b| b == 0).ok_or(Broken::Bounds)?;
    core::str::from_utf8(&rest[..len]).map_err(|_| Broken::Structure)
}

/// The size that a tree's header declares, in bytes.
pub fn declared_size(header: &[u8]) -> Result<usize, Broken> {
    if be32(header, 0) != Some(MAGIC) {
        return Err(Broken::Magic);
    }
    be32(header, 4).map(|size| size as usize).ok_or(Broken::Bounds)
}

/// Visits every property in order.
pub fn walk(tree: &[u8], mut visit: impl FnMut(Property<'_>)) -> Result<(), Broken> {
    let size = declared_size(tree)?;
    let tree = tree.get(..size).ok_or(Broken::Bounds)?;
    let word = |at| be32(tree, at).ok_or(Broken::Bounds);
    let (structure, strings) = (word(8)? as usize, word(12)? as usize);
    let mut path = [""; MAX_DEPTH];
    let mut depth = 0;
    let mut at = structure;
    loop {
        let token = word(at)?;
        at += 4;
        match token {
            BEGIN_NODE => {
                let name = name_at(tree, at)?;
                *path.get_mut(depth).ok_or(Broken::Depth)? = name;
                depth += 1;
                at += (name.len() + 1).next_multiple_of(4);
            }
            END_NODE => depth = depth.checked_sub(1).ok_or(Broken::Structure)?,
            PROP => {
                let (len, name) = (word(at)? as usize, word(at + 4)? as usize);
                let value = tree.get(at + 8..).and_then(|rest| rest.get(..len));
                let value = value.ok_or(Broken::Bounds)?;
                let name = name_at(tree, strings.checked_add(name).ok_or(Broken::Bounds)?)?;
                let path = path.get(1..depth).ok_or(Broken::Structure)?;
                visit(Property { path, name, value });
                at += 8 + len.next_multiple_of(4);
            }
            NOP => {}
            END if depth == 0 => return Ok(()),
            _ => return Err(Broken::Structure),
        }
    }
}
