// SPDX-License-Identifier: MIT
//! What `hv_probe` draws on the synthetic screen, pixel by pixel, and the key that makes it go on.
//!
//! Always true: no two pixels of the first picture are alike, so a picture that is moved or mirrored is not it.

/// Pixels of a row.
pub const WIDTH: u32 = 1024;
/// Rows.
pub const HEIGHT: u32 = 768;
/// Scan code (set 1) of the key that ends a picture: enter.
pub const ENTER: u8 = 0x1C;

/// A part of the picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Block {
    const fn at(x: u32, y: u32) -> Self {
        Self {
            x,
            y,
            width: 200,
            height: 100,
        }
    }

    const fn has(self, x: u32, y: u32) -> bool {
        x >= self.x && y >= self.y && x - self.x < self.width && y - self.y < self.height
    }
}

/// Where the second picture differs: one block is filled, and one shows what another showed.
pub const FILLED: Block = Block::at(64, 48);
/// What is copied.
pub const COPIED: Block = Block::at(300, 200);
/// Where it is copied to.
pub const COPY: Block = Block::at(701, 601);
/// Where the third differs from the second, up to the last pixel.
pub const LATE: Block = Block::at(WIDTH - 200, HEIGHT - 100);
/// Colour of [`FILLED`], 0x00RRGGBB.
pub const FILL: u32 = 0x00C0_FFEE;
/// Colour of [`LATE`].
pub const LATE_FILL: u32 = 0x0012_3456;

/// The first picture.
pub const fn first(x: u32, y: u32) -> u32 {
    // An odd factor makes different numbers of 24 bits different.
    (x | y << 10).wrapping_mul(0x9E_3779) & 0xFF_FFFF
}

/// Picture `number`, of three.
pub const fn pixel(number: u32, x: u32, y: u32) -> u32 {
    if number >= 3 && LATE.has(x, y) {
        LATE_FILL
    } else if number >= 2 && FILLED.has(x, y) {
        FILL
    } else if number >= 2 && COPY.has(x, y) {
        first(x - COPY.x + COPIED.x, y - COPY.y + COPIED.y)
    } else {
        first(x, y)
    }
}
