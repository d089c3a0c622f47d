"""Names of the tensors of a published reconstructor, translated to ours.

Published names: networks-reconstructor.md §11, networks-stylegan.md §10.2 and §10.3. `deformer.*` is not covered here.
"""

from portrait4d.models.name_table import SHARED_MODULES, SHARED_TENSORS, NameTable

_CROSS = r"encoder_canonical\.trans_blocks_(neutral|motion)\.(\d+)"
_CROSS_OURS = r"canonical_encoder.\1_blocks.\2"
_BLOCK = r"generator_triplane\.trans_blocks\.0"

_MODULES = (
    # layers, each with a weight and perhaps a bias: published (regular expression), ours
    (r"encoder_global\.encoder\.conv1", r"global_encoder.stem"),
    (r"encoder_global\.encoder\.layer([1-4])\.(\d+)\.(conv[12])", r"global_encoder.stage\1.\2.\3"),
    (r"encoder_global\.encoder\.layer([2-4])\.0\.downsample\.0", r"global_encoder.stage\1.0.shortcut"),
    (r"encoder_global\.decoder\.0\.convs\.([0-3])\.0", r"global_encoder.pyramid.branches.\1"),
    (r"encoder_global\.decoder\.0\.convs\.4\.1", r"global_encoder.pyramid.pooled"),
    (r"encoder_global\.decoder\.0\.project\.0", r"global_encoder.pyramid.projection"),
    (r"encoder_global\.decoder\.1", r"global_encoder.output"),
    (r"encoder_detail\.encoder\.([02468])", r"detail_encoder.layers.\1"),
    (r"encoder_canonical\.maps_neutral\.([02])", r"canonical_encoder.source_motion.hidden.\1"),
    (r"encoder_canonical\.proj_y_neutral", r"canonical_encoder.source_motion.expansion"),
    (r"encoder_canonical\.maps\.([02])", r"canonical_encoder.driving_motion.hidden.\1"),
    (r"encoder_canonical\.proj_y", r"canonical_encoder.driving_motion.expansion"),
    (r"encoder_canonical\.patch_embed\.proj", r"canonical_encoder.patch_embedding.projection"),
    (r"encoder_canonical\.patch_embed\.norm", r"canonical_encoder.patch_embedding.norm"),
    # the published numbers of the normalisations do not follow the order of execution: 2 (cross), 1 (self), 3 (MLP)
    (_CROSS + r"\.norm1", _CROSS_OURS + r".self_norm"),
    (_CROSS + r"\.norm2", _CROSS_OURS + r".cross_norm"),
    (_CROSS + r"\.norm3", _CROSS_OURS + r".mlp_norm"),
    (_CROSS + r"\.attn1\.q", _CROSS_OURS + r".self_attention.query"),
    (_CROSS + r"\.attn1\.kv", _CROSS_OURS + r".self_attention.key_value"),
    (_CROSS + r"\.attn1\.proj", _CROSS_OURS + r".self_attention.output"),
    (_CROSS + r"\.attn2\.q", _CROSS_OURS + r".cross_attention.query"),
    (_CROSS + r"\.attn2\.kv", _CROSS_OURS + r".cross_attention.key_value"),
    (_CROSS + r"\.attn2\.proj", _CROSS_OURS + r".cross_attention.output"),
    (_CROSS + r"\.mlp\.fc1", _CROSS_OURS + r".mlp.widen"),
    (_CROSS + r"\.mlp\.dwconv\.dwconv", _CROSS_OURS + r".mlp.depthwise"),
    (_CROSS + r"\.mlp\.fc2", _CROSS_OURS + r".mlp.narrow"),
    (r"encoder_canonical\.convs\.([146])", r"canonical_encoder.upsampler.\1"),
    (r"generator_triplane\.convs1\.0", r"plane_generator.input_conv"),
    (r"generator_triplane\.convs1\.2", r"plane_generator.embedding_conv"),
    (r"generator_triplane\.patch_embed\.proj", r"plane_generator.patch_embedding.projection"),
    (r"generator_triplane\.patch_embed\.norm", r"plane_generator.patch_embedding.norm"),
    (_BLOCK + r"\.norm1", r"plane_generator.block.self_norm"),
    (_BLOCK + r"\.norm2", r"plane_generator.block.mlp_norm"),
    (_BLOCK + r"\.attn\.q", r"plane_generator.block.self_attention.query"),
    (_BLOCK + r"\.attn\.kv", r"plane_generator.block.self_attention.key_value"),
    (_BLOCK + r"\.attn\.proj", r"plane_generator.block.self_attention.output"),
    (_BLOCK + r"\.attn\.sr", r"plane_generator.block.self_attention.reduction"),
    (_BLOCK + r"\.attn\.norm", r"plane_generator.block.self_attention.reduction_norm"),
    (_BLOCK + r"\.mlp\.fc1", r"plane_generator.block.mlp.widen"),
    (_BLOCK + r"\.mlp\.dwconv\.dwconv", r"plane_generator.block.mlp.depthwise"),
    (_BLOCK + r"\.mlp\.fc2", r"plane_generator.block.mlp.narrow"),
    (r"generator_triplane\.convs2\.([024])", r"plane_generator.fusion.\1"),
    (r"generator_triplane\.conv_last", r"plane_generator.output_conv"),
    (r"background\.input_conv\.0", r"background_encoder.input_conv"),
    (r"background\.down_conv_([123])\.0", r"background_encoder.down\1.conv"),
    (r"background\.down_conv_([123])\.2\.op", r"background_encoder.down\1.resample"),
    (r"background\.middle\.0", r"background_encoder.middle"),
    (r"background\.up_conv_([1-4])\.0", r"background_encoder.up\1.conv"),
    (r"background\.up_conv_([1-4])\.2\.conv", r"background_encoder.up\1.resample"),
    (r"background\.out_conv", r"background_encoder.output_conv"),
    *SHARED_MODULES,
)

_TENSORS = (
    # other tensors: published (regular expression), ours or None where it is not needed
    (r"w_avg", r"average_style"),
    *SHARED_TENSORS,
)

_TABLE = NameTable("reconstructor", _MODULES, _TENSORS)


def rename_reconstructor(name: str) -> str | None:
    """Return our name of a published reconstructor's tensor, or None if we have no use for it.

    Raises:
        KeyError: if the name is not that of a published tensor, or starts with `deformer.`.
    """
    return _TABLE.rename(name)
