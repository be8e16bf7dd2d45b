//! A gzip body that holds nothing but blanks, for bodies that grow when they are unpacked.
//!
//! It is written by hand, in fixed-Huffman blocks (RFC 1951, 3.2.6) of one blank and matches of 258: that needs no
//! compressor, and no more memory than a block.

use axum::body::Bytes;

/// Matches in a block: so many that a block ends with a whole byte.
const MATCHES: u64 = 4006;
/// Blanks in a block.
const BLANKS: u64 = 1 + MATCHES * 258;
const HEADER: &[u8] = &[0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF];

/// The pieces of a gzip body that unpacks to at least this many blanks.
pub(super) fn blanks(at_least: u64) -> impl Iterator<Item = Bytes> + Send {
    let blocks = at_least.div_ceil(BLANKS);
    let block = block();
    let mut crc = u32::MAX;
    let mut left = blocks;
    let mut ended = false;
    let body = std::iter::from_fn(move || {
        if left > 0 {
            left -= 1;
            crc = crc_over_block(crc);
            return Some(block.clone());
        }
        let end = (!ended).then(|| end(!crc, blocks));
        ended = true;
        end
    });
    std::iter::once(Bytes::from_static(HEADER)).chain(body)
}

fn block() -> Bytes {
    let mut bits = Bits::default();
    bits.push(0, 1); // not the last block
    bits.push(0b10, 2); // fixed codes, lowest bit first
    bits.push(0x30 + u32::from(b' '), 8);
    for _ in 0..MATCHES {
        bits.push(0xC5, 8); // length 258
        bits.push(0, 5); // distance 1
    }
    bits.push(0, 7); // the end of the block
    Bytes::from(bits.finish())
}

/// An empty last block, the checksum, and the size modulo 2^32.
fn end(crc: u32, blocks: u64) -> Bytes {
    let mut bits = Bits::default();
    bits.push(1, 1);
    bits.push(0b10, 2);
    bits.push(0, 7);
    let mut end = bits.finish();
    end.extend(crc.to_le_bytes());
    end.extend(
        blocks
            .wrapping_mul(BLANKS)
            .to_le_bytes()
            .into_iter()
            .take(4),
    );
    Bytes::from(end)
}

/// Codes, each with its highest bit first, packed into bytes from the lowest bit.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    byte: u8,
    used: u32,
}

impl Bits {
    fn push(&mut self, code: u32, length: u32) {
        for place in (0..length).rev() {
            self.byte |= u8::from((code >> place) & 1 == 1) << self.used;
            self.used += 1;
            if self.used == 8 {
                self.bytes.push(self.byte);
                (self.byte, self.used) = (0, 0);
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.used > 0 {
            self.bytes.push(self.byte);
        }
        self.bytes
    }
}

fn crc_over_block(crc: u32) -> u32 {
    const TABLE: [u32; 256] = crc_table();
    (0..BLANKS).fold(crc, |crc, _| {
        let [low, ..] = (crc ^ u32::from(b' ')).to_le_bytes();
        (crc >> 8) ^ TABLE.get(usize::from(low)).copied().unwrap_or_default()
    })
}

#[expect(
    clippy::indexing_slicing,
    reason = "the index is below the length, and this runs when it is compiled"
)]
const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut crc = byte;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 * (crc & 1));
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
}
