from tests.database.test_group_commit import *
