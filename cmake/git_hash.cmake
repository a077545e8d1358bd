# cmake -DSOURCE=folder -DOUTPUT=git_hash.h -P git_hash.cmake: the commit that is being built, "-changed" when the tree is not it.
# The header is touched only when that changes.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty=-changed --abbrev=12 --exclude=* OUTPUT_VARIABLE hash RESULT_VARIABLE code
                OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT code EQUAL 0)
  set(hash "unknown")
endif()
file(WRITE ${OUTPUT}.new "#define TRIMTAB_GIT_HASH \"${hash}\"\n")
execute_process(COMMAND ${CMAKE_COMMAND} -E copy_if_different ${OUTPUT}.new ${OUTPUT})
