/* Prints where a version of CPython keeps what node_agent/cpython/offsets.toml lists, as JSON. */
#define Py_BUILD_CORE 1
#include <Python.h>
#include <stddef.h>
#include <internal/pycore_pystate.h>
#if PY_VERSION_HEX >= 0x03090000
#include <internal/pycore_interp.h>
#include <internal/pycore_runtime.h>
#endif
#if PY_VERSION_HEX >= 0x030b0000
#include <internal/pycore_frame.h>
typedef _PyInterpreterFrame Frame;
#else
#include <frameobject.h>
typedef PyFrameObject Frame;
#endif

#define SHOW(name, type, field) printf("\"%s\": %d, ", name, (int)offsetof(type, field))

int main(void)
{
	printf("{");
	SHOW("runtime_interpreters", _PyRuntimeState, interpreters.head);
	SHOW("interpreter_next", PyInterpreterState, next);
#if PY_VERSION_HEX >= 0x030b0000
	SHOW("interpreter_threads", PyInterpreterState, threads.head);
	SHOW("frame_previous", Frame, previous);
	SHOW("frame_owner", Frame, owner);
	SHOW("code_qualified_name", PyCodeObject, co_qualname);
#else
	SHOW("interpreter_threads", PyInterpreterState, tstate_head);
	SHOW("frame_previous", Frame, f_back);
	SHOW("code_qualified_name", PyCodeObject, co_name);
#endif
	SHOW("thread_next", PyThreadState, next);
	SHOW("thread_id", PyThreadState, thread_id);
#if PY_VERSION_HEX >= 0x030d0000
	SHOW("thread_frame", PyThreadState, current_frame);
	SHOW("frame_code", Frame, f_executable);
#elif PY_VERSION_HEX >= 0x030b0000
	SHOW("thread_frame", PyThreadState, cframe);
	SHOW("cframe_frame", _PyCFrame, current_frame);
	SHOW("frame_code", Frame, f_code);
#else
	SHOW("thread_frame", PyThreadState, frame);
	SHOW("frame_code", Frame, f_code);
#endif
#if PY_VERSION_HEX >= 0x030b0000 && PY_VERSION_HEX < 0x030c0000
	SHOW("frame_is_entry", Frame, is_entry);
#endif
#if PY_VERSION_HEX >= 0x030a0000
	SHOW("code_line_table", PyCodeObject, co_linetable);
#else
	SHOW("code_line_table", PyCodeObject, co_lnotab);
#endif
	SHOW("code_first_line", PyCodeObject, co_firstlineno);
	SHOW("code_file", PyCodeObject, co_filename);
	SHOW("code_name", PyCodeObject, co_name);
	printf("\"text_ascii\": %d, ", (int)sizeof(PyASCIIObject));
	printf("\"text_compact\": %d}", (int)sizeof(PyCompactUnicodeObject));
	return 0;
}
