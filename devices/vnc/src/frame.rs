// SPDX-License-Identifier: MIT
//! A picture, and where two of them differ.

/// Pixels of a tile, the unit in which changes are sent.
const TILE: (usize, usize) = (64, 16);

/// A picture: rows of pixels, 0x00RRGGBB.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    width: u16,
    height: u16,
    pixels: Vec<u32>,
}

/// A part of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rectangle {
    pub(crate) x: u16,
    pub(crate) y: u16,
    pub(crate) width: u16,
    pub(crate) height: u16,
}

impl Frame {
    /// A black picture.
    pub fn black(width: u16, height: u16) -> Self {
        Self {
            width,
            height,
            pixels: vec![0; usize::from(width) * usize::from(height)],
        }
    }

    /// A picture of `pixels`, row by row; `None` when there are not as many as the size says.
    pub fn new(width: u16, height: u16, pixels: Vec<u32>) -> Option<Self> {
        (pixels.len() == usize::from(width) * usize::from(height)).then_some(Self {
            width,
            height,
            pixels,
        })
    }

    /// Width and height.
    pub fn size(&self) -> (u16, u16) {
        (self.width, self.height)
    }

    pub(crate) fn whole(&self) -> Rectangle {
        Rectangle {
            x: 0,
            y: 0,
            width: self.width,
            height: self.height,
        }
    }

    /// The rows of a part that lies in the picture.
    pub(crate) fn rows(&self, part: Rectangle) -> impl Iterator<Item = &[u32]> {
        let (x, width) = (usize::from(part.x), usize::from(part.width));
        let rows = usize::from(part.y)..usize::from(part.y) + usize::from(part.height);
        rows.map(move |row| {
            let start = row * usize::from(self.width) + x;
            &self.pixels[start..start + width]
        })
    }

    /// What is different in `new`, which has the same size; neighbours in a row of tiles are one part.
    pub(crate) fn changes(&self, new: &Self) -> Vec<Rectangle> {
        let (width, height) = (usize::from(self.width), usize::from(self.height));
        let mut parts: Vec<Rectangle> = Vec::new();
        for y in (0..height).step_by(TILE.1) {
            for x in (0..width).step_by(TILE.0) {
                let tile = Rectangle {
                    x: x as u16,
                    y: y as u16,
                    width: TILE.0.min(width - x) as u16,
                    height: TILE.1.min(height - y) as u16,
                };
                if self.rows(tile).eq(new.rows(tile)) {
                    continue;
                }
                match parts.last_mut() {
                    Some(last) if last.y == tile.y && last.x + last.width == tile.x => {
                        last.width += tile.width;
                    }
                    _ => parts.push(tile),
                }
            }
        }
        parts
    }
}
