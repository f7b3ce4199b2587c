/* SPDX-License-Identifier: Apache-2.0 */
/*
 * header_check - the stand-in's declarations against those of the toolkit that is installed
 *
 * Compiled only where a toolkit of 13.x is found, with the toolkit's folder as the only one that
 * has cuda_runtime_api.h. Values and layouts by static assertions; signatures by declaring each
 * entry point once more, which the compiler refuses unless the two agree.
 */
#include <cuda_runtime_api.h>
#include <stddef.h>

#ifdef FAKE_CUDA
#error "compiled against the stand-in's own header, so it would compare nothing"
#endif

#include "include/stand_in_calls.h"
#include "include/stand_in_values.h"

#define SAME_VALUE(name, value) _Static_assert((int)(name) == (value), #name);
#define SAME_ERROR(name, value, text) SAME_VALUE(name, value)
STAND_IN_ERRORS(SAME_ERROR)
STAND_IN_MEMCPY_KINDS(SAME_VALUE)
STAND_IN_MEMORY_TYPES(SAME_VALUE)
STAND_IN_LOCATION_TYPES(SAME_VALUE)
STAND_IN_ACCESS_ORDERS(SAME_VALUE)
STAND_IN_MEMCPY_FLAGS(SAME_VALUE)
STAND_IN_CAPTURE_STATUSES(SAME_VALUE)
STAND_IN_CAPTURE_MODES(SAME_VALUE)
STAND_IN_DRIVER_ENTRY_POINT_RESULTS(SAME_VALUE)
STAND_IN_DEVICE_ATTRIBUTES(SAME_VALUE)
STAND_IN_FLAGS(SAME_VALUE)

/* The toolkit's structs under their names, the stand-in's as struct ours_... */
typedef struct cudaMemLocation real_cudaMemLocation;
typedef struct cudaMemcpyAttributes real_cudaMemcpyAttributes;
typedef struct cudaPointerAttributes real_cudaPointerAttributes;
typedef struct cudaPitchedPtr real_cudaPitchedPtr;
typedef struct cudaExtent real_cudaExtent;
typedef struct cudaPos real_cudaPos;
typedef struct cudaMemcpy3DParms real_cudaMemcpy3DParms;

#define cudaMemLocation ours_cudaMemLocation
#define cudaMemcpyAttributes ours_cudaMemcpyAttributes
#define cudaPointerAttributes ours_cudaPointerAttributes
#define cudaPitchedPtr ours_cudaPitchedPtr
#define cudaExtent ours_cudaExtent
#define cudaPos ours_cudaPos
#define cudaMemcpy3DParms ours_cudaMemcpy3DParms
#include "include/stand_in_structs.h"
#undef cudaMemLocation
#undef cudaMemcpyAttributes
#undef cudaPointerAttributes
#undef cudaPitchedPtr
#undef cudaExtent
#undef cudaPos
#undef cudaMemcpy3DParms

#define SIZE_OF_FIELD(type, field) sizeof(((type *)NULL)->field)
#define SAME_SIZE(tag) _Static_assert(sizeof(real_##tag) == sizeof(struct ours_##tag), #tag);
#define SAME_FIELD(tag, field)                                                                     \
    _Static_assert(offsetof(real_##tag, field) == offsetof(struct ours_##tag, field),              \
                   #tag "." #field);                                                               \
    _Static_assert(SIZE_OF_FIELD(real_##tag, field) == SIZE_OF_FIELD(struct ours_##tag, field),    \
                   #tag "." #field);

SAME_SIZE(cudaMemLocation)
SAME_FIELD(cudaMemLocation, type)
SAME_FIELD(cudaMemLocation, id)

SAME_SIZE(cudaMemcpyAttributes)
SAME_FIELD(cudaMemcpyAttributes, srcAccessOrder)
SAME_FIELD(cudaMemcpyAttributes, srcLocHint)
SAME_FIELD(cudaMemcpyAttributes, dstLocHint)
SAME_FIELD(cudaMemcpyAttributes, flags)

SAME_SIZE(cudaPointerAttributes)
SAME_FIELD(cudaPointerAttributes, type)
SAME_FIELD(cudaPointerAttributes, device)
SAME_FIELD(cudaPointerAttributes, devicePointer)
SAME_FIELD(cudaPointerAttributes, hostPointer)
SAME_FIELD(cudaPointerAttributes, reserved)

SAME_SIZE(cudaPitchedPtr)
SAME_FIELD(cudaPitchedPtr, ptr)
SAME_FIELD(cudaPitchedPtr, pitch)
SAME_FIELD(cudaPitchedPtr, xsize)
SAME_FIELD(cudaPitchedPtr, ysize)

SAME_SIZE(cudaExtent)
SAME_FIELD(cudaExtent, width)
SAME_FIELD(cudaExtent, height)
SAME_FIELD(cudaExtent, depth)

SAME_SIZE(cudaPos)
SAME_FIELD(cudaPos, x)
SAME_FIELD(cudaPos, y)
SAME_FIELD(cudaPos, z)

SAME_SIZE(cudaMemcpy3DParms)
SAME_FIELD(cudaMemcpy3DParms, srcArray)
SAME_FIELD(cudaMemcpy3DParms, srcPos)
SAME_FIELD(cudaMemcpy3DParms, srcPtr)
SAME_FIELD(cudaMemcpy3DParms, dstArray)
SAME_FIELD(cudaMemcpy3DParms, dstPos)
SAME_FIELD(cudaMemcpy3DParms, dstPtr)
SAME_FIELD(cudaMemcpy3DParms, extent)
SAME_FIELD(cudaMemcpy3DParms, kind)
