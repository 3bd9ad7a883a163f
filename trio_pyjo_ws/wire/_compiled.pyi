from ._codec import Decoder as Decoder
from ._codec import Utf8Validator as Utf8Validator
from ._codec import apply_mask as apply_mask
from ._codec import encode as encode
