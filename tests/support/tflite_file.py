"""Write a quantised network of convolutions as a TFLite file."""

import flatbuffers
import numpy as np
import tflite


def write(path, layers):
    """Write convolutions as a chain.

    Args:
        path: The file.
        layers: (kind, weight, bias) of each; kind is "CONV_2D" or "DEPTHWISE_CONV_2D"; weight is
            (uint8 [out, h, w, in] or [1, h, w, out], scale, zero point), bias (int32 [out], scale).
    """
    b = flatbuffers.Builder(1 << 20)
    buffers, tensors, operators = (
        [_buffer(b, b"")],
        [_tensor(b, "in", np.zeros((1, 1), np.uint8))],
        [],
    )
    codes = ["CONV_2D", "DEPTHWISE_CONV_2D", "ADD"]
    for i, (kind, (weight, scale, zero), (bias, bias_scale)) in enumerate(layers):
        for name, values, one_scale, point in (
            (f"w{i}", weight, scale, zero),
            (f"b{i}", bias, bias_scale, 0),
        ):
            tensors.append(_tensor(b, name, values, len(buffers), one_scale, point))
            buffers.append(_buffer(b, values.tobytes()))
        inputs = [0, len(tensors) - 2, len(tensors) - 1]
        operators.append(_operator(b, codes.index(kind), inputs))
        operators.append(_operator(b, codes.index("ADD"), [0, 0]))  # is not read
    operator_codes = [_code(b, getattr(tflite.BuiltinOperator, name)) for name in codes]
    tensor_list = _offsets(b, tflite.SubGraphStartTensorsVector, tensors)
    operator_list = _offsets(b, tflite.SubGraphStartOperatorsVector, operators)
    tflite.SubGraphStart(b)
    tflite.SubGraphAddTensors(b, tensor_list)
    tflite.SubGraphAddOperators(b, operator_list)
    graphs = _offsets(b, tflite.ModelStartSubgraphsVector, [tflite.SubGraphEnd(b)])
    code_list = _offsets(b, tflite.ModelStartOperatorCodesVector, operator_codes)
    buffer_list = _offsets(b, tflite.ModelStartBuffersVector, buffers)
    tflite.ModelStart(b)
    tflite.ModelAddVersion(b, 3)
    tflite.ModelAddOperatorCodes(b, code_list)
    tflite.ModelAddSubgraphs(b, graphs)
    tflite.ModelAddBuffers(b, buffer_list)
    b.Finish(tflite.ModelEnd(b), file_identifier=b"TFL3")
    path.write_bytes(b.Output())


def _offsets(b, start, items):
    start(b, len(items))
    for item in reversed(items):
        b.PrependUOffsetTRelative(item)
    return b.EndVector()


def _buffer(b, content):
    data = b.CreateByteVector(content)
    tflite.BufferStart(b)
    tflite.BufferAddData(b, data)
    return tflite.BufferEnd(b)


def _tensor(b, name, values, buffer=0, scale=1.0, zero=0):
    text = b.CreateString(name)
    shape = b.CreateNumpyVector(np.array(values.shape, np.int32))
    scales = b.CreateNumpyVector(np.array([scale], np.float32))
    zeros = b.CreateNumpyVector(np.array([zero], np.int64))
    tflite.QuantizationParametersStart(b)
    tflite.QuantizationParametersAddScale(b, scales)
    tflite.QuantizationParametersAddZeroPoint(b, zeros)
    quantisation = tflite.QuantizationParametersEnd(b)
    tflite.TensorStart(b)
    tflite.TensorAddShape(b, shape)
    kinds = {"uint8": tflite.TensorType.UINT8, "int32": tflite.TensorType.INT32}
    tflite.TensorAddType(b, kinds[values.dtype.name])
    tflite.TensorAddBuffer(b, buffer)
    tflite.TensorAddName(b, text)
    tflite.TensorAddQuantization(b, quantisation)
    return tflite.TensorEnd(b)


def _operator(b, code, inputs):
    numbers = b.CreateNumpyVector(np.array(inputs, np.int32))
    tflite.OperatorStart(b)
    tflite.OperatorAddOpcodeIndex(b, code)
    tflite.OperatorAddInputs(b, numbers)
    return tflite.OperatorEnd(b)


def _code(b, builtin):
    tflite.OperatorCodeStart(b)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(b, builtin)
    tflite.OperatorCodeAddBuiltinCode(b, builtin)
    return tflite.OperatorCodeEnd(b)
