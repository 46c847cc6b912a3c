//! Fields of type `bytes` in the JSON form of protobuf.

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};

/// Returns the bytes of a string in any form of base64 that Envoy accepts: with either alphabet, with or without padding.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let standard = text.replace('-', "+").replace('_', "/");
    GeneralPurpose::new(&alphabet::STANDARD, config).decode(standard).ok()
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn each_form_is_decoded() {
        for text in ["+/8=", "+/8", "-_8=", "-_8"] {
            assert_eq!(decode(text), Some(vec![0xfb, 0xff]), "{text}");
        }
        assert_eq!(decode(""), Some(Vec::new()));
        for wrong in ["a", "+/8==", "+ /8", "{}"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
