// SPDX-License-Identifier: MIT
//! Pixel formats (RFC 6143, section 7.4).

/// Bytes of a format in messages.
pub(crate) const BYTES: usize = 16;

/// How a client wants its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PixelFormat {
    bytes: usize,
    big_endian: bool,
    /// Greatest value and shift of red, green and blue.
    colours: [(u16, u8); 3],
}

impl PixelFormat {
    /// What frames have: 32 bits, little-endian, red above green above blue.
    pub(crate) const NATIVE: Self = Self {
        bytes: 4,
        big_endian: false,
        colours: [(255, 16), (255, 8), (255, 0)],
    };

    /// A format that a client asks for; `None` for what is not true colour in whole bytes.
    pub(crate) fn read(bytes: &[u8; BYTES]) -> Option<Self> {
        let (bits, true_colour) = (bytes[0], bytes[3]);
        let maximum = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let colours = [
            (maximum(4), bytes[10]),
            (maximum(6), bytes[11]),
            (maximum(8), bytes[12]),
        ];
        let sound = matches!(bits, 8 | 16 | 32) && true_colour != 0;
        (sound && colours.iter().all(|(_, shift)| *shift < bits)).then_some(Self {
            bytes: usize::from(bits / 8),
            big_endian: bytes[2] != 0,
            colours,
        })
    }

    /// As messages have it.
    pub(crate) fn write(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[0] = (self.bytes * 8) as u8;
        bytes[1] = 24;
        bytes[2] = self.big_endian.into();
        bytes[3] = 1;
        for (i, (maximum, shift)) in self.colours.into_iter().enumerate() {
            bytes[4 + 2 * i..6 + 2 * i].copy_from_slice(&maximum.to_be_bytes());
            bytes[10 + i] = shift;
        }
        bytes
    }

    /// Appends pixels of a frame.
    pub(crate) fn encode(self, pixels: &[u32], to: &mut Vec<u8>) {
        if self == Self::NATIVE {
            to.extend(pixels.iter().flat_map(|pixel| (pixel & 0xFF_FFFF).to_le_bytes()));
            return;
        }
        for pixel in pixels {
            let [blue, green, red, _] = pixel.to_le_bytes();
            let value = self.colours.iter().zip([red, green, blue]).fold(
                0_u32,
                |value, ((maximum, shift), colour)| {
                    // Shifts are below 32; what a format has no room for falls off.
                    value | (u32::from(colour) * u32::from(*maximum) / 255) << shift
                },
            );
            if self.big_endian {
                to.extend_from_slice(&value.to_be_bytes()[4 - self.bytes..]);
            } else {
                to.extend_from_slice(&value.to_le_bytes()[..self.bytes]);
            }
        }
    }
}
